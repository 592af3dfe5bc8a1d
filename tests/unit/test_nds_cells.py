"""The cell families of NDS: networks with the published parameters and operations; their parts one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import get_space
from naswot.spaces._cell_network import OPERATIONS, CellPlan, _Cell, drop_path, loose_ends

FILES = {
    "Amoeba_in": ("nds_amoeba", 124),
    "DARTS_in": ("nds_darts", 121),
    "DARTS_fix-w-d_in": ("nds_darts", 499),
    "DARTS_lr-wd_in": ("nds_darts", 515),
    "ENAS_in": ("nds_enas", 117),
    "NASNet_in": ("nds_nasnet", 122),
    "PNAS_in": ("nds_pnas", 119),
}
SPACES = sorted({space for space, _ in FILES.values()})
WITHOUT_PARAMETERS = ("none", "avg_pool_3x3", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7")


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def rows_of(data_root, file):
    path = data_root / "nds" / "original" / f"{file}.json"
    if not path.exists():
        pytest.skip(f"no file {path}")
    return json.loads(path.read_text())


def build(space, row):
    with torch.device("meta"):
        return space.build(space.from_description(row["net"]), n_classes=1000, stem="imagenet").eval()


def published_flops(model, size):
    """As the authors count: see ``bench_adapters/nds_cells.py``."""
    total = []

    def count(module, inputs, output):
        image = inputs[0]
        if isinstance(module, nn.Conv2d):
            places = [
                (n + 2 * p - k) // s + 1
                for n, p, k, s in zip(image.shape[2:], module.padding, module.kernel_size, module.stride, strict=True)
            ]
            total.append(module.weight.numel() * places[0] * places[1])
        elif isinstance(module, nn.Linear):
            total.append(module.weight.numel() + module.bias.numel())
        elif isinstance(module, nn.ReLU | nn.AdaptiveAvgPool2d):
            total.append(image.numel())
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            total.append(module.kernel_size**2 * output.numel())

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size, device="meta"))
    return sum(total)


@pytest.mark.parametrize("file", FILES)
def test_networks_have_the_published_parameters(file, data_root):
    rows, space = rows_of(data_root, file), get_space(FILES[file][0])
    for row in rows[:: len(rows) // 4]:
        assert n_parameters(build(space, row)) == row["params"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", FILES)
def test_all_networks_have_the_published_parameters(file, data_root):
    rows, space = rows_of(data_root, file), get_space(FILES[file][0])
    assert [n_parameters(build(space, row)) for row in rows] == [row["params"] for row in rows]


@pytest.mark.parametrize("file", FILES)
def test_networks_have_the_published_operations(file, data_root):
    rows, space = rows_of(data_root, file), get_space(FILES[file][0])
    for row in rows[len(rows) // 3 :: len(rows) // 2]:
        assert published_flops(build(space, row), 224) == row["flops"]


@pytest.mark.parametrize("file", FILES)
def test_descriptions_read_back_whole_with_the_derived_outputs(file, data_root):
    rows, (name, n) = rows_of(data_root, file), FILES[file]
    space = get_space(name)
    assert len({space.from_description(row["net"]) for row in rows}) == len(rows) == n
    for row in rows:
        wanted = {key: row["net"][key] for key in ("width", "depth", "genotype")}
        genotype = space.parse(json.dumps(row["net"]))
        assert space.describe(genotype) == json.loads(space.format(genotype)) == wanted


def test_output_is_what_no_edge_reads():
    assert loose_ends([("a", 0), ("a", 1), ("a", 2), ("a", 0), ("a", 1), ("a", 1)]) == (3, 4)
    assert loose_ends([("a", 0), ("a", 1), ("a", 2), ("a", 2), ("a", 3), ("a", 0)]) == (4,)
    genotype = (0,) * 42
    assert [plan.concat for plan in get_space("nds_enas").cells(genotype)] == [(2, 3, 4, 5, 6)] * 2
    chain = (0, 0, 0, 1, 0, 2, 0, 0, 0, 3, 0, 3, 0, 4, 0, 4, 0, 5, 0, 5)
    for name, concat in (("nds_enas", (6,)), ("nds_nasnet", (6,)), ("nds_amoeba", (6,)), ("nds_pnas", (2, 3, 4, 5, 6))):
        assert [plan.concat for plan in get_space(name).cells((*chain, *chain, 0, 0))] == [concat] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.update(width=36), "width 36 is none of"),
        (lambda net: net.update(depth=5), "depth 5 is none of"),
        (lambda net: net.pop("depth"), "expected width, depth and genotype"),
        (lambda net: net["genotype"].update(normal_concat=[2, 3, 4]), "normal_concat is"),
        (lambda net: net["genotype"]["reduce"].pop(), r"8 \(operation, input\) pairs"),
        (lambda net: net["genotype"]["reduce"].__setitem__(5, ["conv_1x1", 0]), "edge 5: operation 'conv_1x1' is none"),
        (lambda net: net["genotype"]["normal"].__setitem__(3, ["none", 3]), "edge 3: input 3 is no node from 0 to 2"),
        (lambda net: net["genotype"]["normal"].__setitem__(3, ["none", True]), "edge 3: input True is no node"),
        (lambda net: net["genotype"]["normal"].__setitem__(0, 7), "edge 0: expected a pair"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(change, message):
    space = get_space("nds_darts")
    net = space.describe(space.sample(np.random.default_rng(0)))
    change(net)
    with pytest.raises(ArchitectureError, match=message):
        space.parse(json.dumps(net))


def test_order_of_the_edges_of_a_node_does_not_matter():
    space = get_space("nds_pnas")
    genotype = (0, 0, 1, 1, 2, 0, 3, 2) + (0,) * 34
    swapped = (0, 0, 1, 1, 3, 2, 2, 0) + (0,) * 34
    across = (0, 0, 2, 0, 1, 1, 3, 2) + (0,) * 34
    assert space.canonical(swapped) == space.canonical(genotype) != space.canonical(across)


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_channels_and_round_sizes_up(name, stride, size):
    with torch.no_grad():
        result = OPERATIONS[name](6, stride)(torch.randn(2, 6, size, size))
    assert result.shape == (2, 6, -(-size // stride), -(-size // stride))


def test_operations_have_the_parameters_worked_out_by_hand():
    c = 6
    by_hand = dict.fromkeys(WITHOUT_PARAMETERS, 0) | {"skip_connect": 0}
    by_hand |= {f"conv_{k}x{k}": k * k * c * c + 2 * c for k in (1, 3)}
    by_hand |= {f"conv_{k}x1_1x{k}": 2 * k * c * c + 2 * c for k in (3, 7)}
    by_hand |= {f"sep_conv_{k}x{k}": 2 * (k * k * c + c * c + 2 * c) for k in (3, 5, 7)}
    by_hand |= {f"dil_conv_{k}x{k}": k * k * c + c * c + 2 * c for k in (3, 5)}
    by_hand["dil_sep_conv_3x3"] = by_hand["sep_conv_3x3"]
    by_hand["noise"] = 0
    assert {name: n_parameters(make(c, 1)) for name, make in OPERATIONS.items()} == by_hand
    halving = {name: n_parameters(make(c, 2)) for name, make in OPERATIONS.items()}
    assert halving == by_hand | {"skip_connect": c * c + 2 * c}


@pytest.mark.parametrize(("name", "reach"), [("dil_conv_3x3", 2), ("dil_conv_5x5", 4), ("dil_sep_conv_3x3", 4)])
def test_dilated_operations_reach_further_with_holes(name, reach):
    image = torch.zeros(1, 2, 13, 13)
    image[0, 0, 6, 6] = 1.0
    operation = OPERATIONS[name](2, 1).eval()
    for parameter in operation.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.ndim == 4 else parameter.mean().item())
    touched = {int(row) for row in operation(image)[0, 0].nonzero()[:, 0]}
    assert touched == set(range(6 - reach, 7 + reach, 2))


def test_none_gives_zeros_and_a_zero_gradient():
    image = torch.randn(1, 2, 5, 5, requires_grad=True)
    result = OPERATIONS["none"](2, 2)(image)
    result.sum().backward()
    assert not result.any()
    assert not image.grad.any()


def test_a_cell_adds_two_edges_to_a_node_and_concatenates():
    plan = CellPlan((("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2), ("skip_connect", 1)), (2, 3))
    cell = _Cell(plan, 3, 5, 4, reduces=False, halved=False).eval()
    before, last = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 6, 6)
    first, second = cell.inputs[0](before), cell.inputs[1](last)
    result = cell(before, last, 0.0)
    assert torch.equal(result, torch.cat([first + second, first + second + second], dim=1))


def test_two_cells_halve_size_and_double_channels():
    space = get_space("nds_darts")
    model = space.build((3, 0, 3, 1) * 8 + (0, 3))  # skips everywhere, width 16, ten cells
    shapes = []
    for cell in model.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert shapes == [(64, 32, 32)] * 3 + [(128, 16, 16)] * 3 + [(256, 8, 8)] * 4


@pytest.mark.parametrize(("stem", "size"), [("cifar", 33), ("imagenet", 225), ("imagenet", 47)])
@pytest.mark.parametrize("name", SPACES)
def test_networks_take_any_size(name, stem, size):
    space = get_space(name)
    genotype = (*space.sample(np.random.default_rng(1))[:-2], 0, 1)
    with torch.device("meta"):
        model = space.build(genotype, n_classes=7, stem=stem).eval()
    assert model(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 7)


def test_dropped_paths_are_scaled_whole_images():
    torch.manual_seed(0)
    result = drop_path(torch.ones(4000, 2, 3, 3), 0.25)
    per_image = result.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    assert per_image[:, 0].unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs(result.mean().item() - 1.0) < 0.04  # five standard errors of 4,000 draws


def test_paths_are_dropped_in_training_and_off_identities():
    plan = CellPlan((("skip_connect", 0), ("conv_1x1", 1)), (2,))
    cell = _Cell(plan, 4, 4, 4, reduces=False, halved=False)
    image = torch.randn(8, 4, 6, 6)
    nearly_one = 1 - 1e-7
    torch.manual_seed(0)
    assert torch.equal(cell(image, image, nearly_one), cell.inputs[0](image))
    assert not torch.equal(cell(image, image, 0.0), cell.inputs[0](image))
    cell.eval()
    assert torch.equal(cell(image, image, nearly_one), cell(image, image, 0.0))


@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("imagenet", 224)])
def test_second_classifier_speaks_in_training_only(stem, size):
    space = get_space("nds_enas")
    genotype = (*space.sample(np.random.default_rng(0))[:-2], 0, 0)
    model = space.build(genotype, n_classes=5, stem=stem, auxiliary=True)
    logits, second = model(torch.randn(2, 3, size, size))
    assert logits.shape == second.shape == (2, 5)
    assert model.eval()(torch.randn(2, 3, size, size)).shape == (2, 5)


@pytest.mark.parametrize("wrong", [{"stem": "mnist"}, {"drop_prob": 1.0}, {"n_classes": 0}, {"in_channels": 0}])
def test_options_that_do_not_fit_are_refused(wrong):
    space = get_space("nds_enas")
    with pytest.raises(OptionError, match="expected"):
        space.build((0,) * 42, **wrong)
