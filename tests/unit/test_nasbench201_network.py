"""NAS-Bench-201: the network around the cell, full and pruned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from naswot.errors import OptionError
from naswot.space import get_space
from naswot.spaces._nasbench201_network import Cell, Reduction, ReLUConvBN, Zero

NONE, SKIP, CONV1, CONV3, POOL = range(5)
GENOTYPE = (CONV3, NONE, SKIP, CONV1, POOL, CONV3)
SPACE = get_space("nasbench201")
ALL = list(SPACE.genotypes())


def outputs_by_module(model, x):
    shapes = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.__setitem__(name, tuple(out.shape)))
    model(x)
    return shapes


def test_shapes_of_the_published_network():
    model = SPACE.build(GENOTYPE)
    shapes = outputs_by_module(model, torch.zeros(2, 3, 32, 32))
    expected = [(2, 16, 32, 32)] * 5 + [(2, 32, 16, 16)] * 6 + [(2, 64, 8, 8)] * 6
    assert [shapes[f"cells.{i}"] for i in range(17)] == expected
    assert [isinstance(layer, Reduction) for layer in model.cells] == [i in (5, 11) for i in range(17)]
    assert shapes["stem"] == (2, 16, 32, 32)
    assert shapes["last"] == (2, 64, 8, 8)
    assert shapes[""] == (2, 10)
    # stem and classifier are not counted; 3 convolution edges in 15 cells, 2 in each of 2 reductions
    assert sum(type(m).__name__ == "ReLUConvBN" for m in model.modules()) == 3 * 15 + 2 * 2
    assert all(conv.bias is None for conv in model.modules() if isinstance(conv, nn.Conv2d))
    assert all(norm.affine and norm.track_running_stats for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert not any(relu.inplace for relu in model.modules() if isinstance(relu, nn.ReLU))


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (32, 32), (31, 9), (64, 6)])
@pytest.mark.parametrize("options", [{"width": 3, "n_cells": 1}, {"width": 8, "n_cells": 2, "in_channels": 1}])
def test_any_width_depth_and_size(options, size, pruned):
    model = SPACE.build(GENOTYPE, n_classes=7, pruned=pruned, **options)
    logits = model(torch.randn(3, options.get("in_channels", 3), *size))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()
    assert logits.std() > 0
    logits.sum().backward()


@pytest.mark.parametrize("option", ["n_classes", "in_channels", "width", "n_cells"])
@pytest.mark.parametrize("method", ["build", "n_parameters"])
def test_numbers_below_one_are_refused(method, option):
    with pytest.raises(OptionError, match=f"{option} of at least 1, but got 0"):
        getattr(SPACE, method)(GENOTYPE, **{option: 0})


def test_a_cell_computes_what_its_string_says():
    torch.manual_seed(0)
    genotype = (CONV3, SKIP, POOL, CONV1, NONE, SKIP)
    cell = Cell(genotype, 4).eval()
    x = torch.randn(2, 4, 6, 6)

    def conv(name, value):
        _, convolution, norm = cell.edges[name]
        out = nn.functional.conv2d(value.clamp_min(0), convolution.weight, padding=convolution.weight.shape[-1] // 2)
        return out / (1 + norm.eps) ** 0.5  # fresh BatchNorm in eval mode

    def pool(value):  # mean over the neighbours inside the image
        kernel = torch.ones(4, 1, 3, 3)
        total = nn.functional.conv2d(value, kernel, padding=1, groups=4)
        return total / nn.functional.conv2d(torch.ones_like(value), kernel, padding=1, groups=4)

    node1 = conv("1<-0", x)
    node2 = x + pool(node1)
    torch.testing.assert_close(cell(x), conv("3<-0", x) + node2)


def test_reduction_is_the_published_residual_block():
    torch.manual_seed(0)
    block = Reduction(4, 8)
    assert [type(block.conv_a), type(block.conv_b)] == [ReLUConvBN, ReLUConvBN]
    assert (block.conv_a[1].stride, block.conv_b[1].stride) == ((2, 2), (1, 1))
    block.conv_b[2].weight.data.zero_()
    x = torch.randn(2, 4, 6, 6)
    means = x.unflatten(2, (3, 2)).unflatten(4, (3, 2)).mean(dim=(3, 5))
    out = block(x)
    torch.testing.assert_close(out, torch.einsum("oi,nihw->nohw", block.shortcut[1].weight[:, :, 0, 0], means))
    assert (out < 0).any()  # no ReLU after the sum


@pytest.mark.parametrize("operation", range(5))
def test_all_edges_of_a_node_read_the_same_object(operation):
    cell = Cell((operation,) * 6, 4)
    read_by = {}
    for name, edge in cell.edges.items():
        edge.register_forward_pre_hook(lambda _, args, name=name: read_by.__setitem__(name, args[0]))
    x = torch.randn(2, 4, 6, 6)
    cell(x)
    assert read_by["1<-0"] is x
    assert read_by["2<-0"] is x
    assert read_by["3<-0"] is x
    assert read_by["3<-1"] is read_by["2<-1"]


def test_none_passes_a_zero_gradient():
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    out = Cell((NONE,) * 6, 4)(x)
    assert not out.any()
    out.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
    model = SPACE.build((NONE,) * 6, width=4, n_cells=1)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not model.stem[0].weight.grad.any()


# --- pruned networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genotype", [*ALL[11::1301], (CONV3, NONE, CONV1, NONE, NONE, NONE), (NONE,) * 6], ids=str)
def test_pruned_network_computes_the_same(genotype):
    torch.manual_seed(0)
    options = {"width": 4, "n_cells": 2}
    full, pruned = SPACE.build(genotype, **options), SPACE.build(genotype, pruned=True, **options)
    loaded = pruned.load_state_dict(full.state_dict(), strict=False)
    assert not loaded.missing_keys
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(pruned(x), full(x))
    built = [module for module in pruned.modules() if isinstance(module, Cell)]
    assert all(len(cell.edges) == sum(o != NONE for o in SPACE.prune(genotype)) for cell in built)
    assert not any(isinstance(module, Zero) for module in pruned.modules())


def test_pruned_build_of_a_representative_has_the_size_of_its_class():
    for genotype in ALL[::997]:
        assert SPACE.n_parameters(genotype, pruned=True) <= SPACE.n_parameters(genotype)
        assert SPACE.n_parameters(genotype, pruned=True) == SPACE.n_parameters(SPACE.prune(genotype))


# --- cells without signal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("genotype", "singular"),
    [
        ((CONV3, NONE, NONE, NONE, NONE, NONE), False),  # no path, but a ReLU looks at the image
        ((POOL, NONE, CONV1, NONE, NONE, NONE), False),
        ((NONE, NONE, CONV1, NONE, NONE, NONE), True),  # node 1 is not fed
        ((NONE, NONE, NONE, SKIP, NONE, NONE), False),  # no convolution, but a path
        ((NONE,) * 6, True),
    ],
)
def test_singular_cells_share_all_codes(genotype, singular):
    assert SPACE.is_singular(genotype) is singular
    torch.manual_seed(0)
    model = SPACE.build(genotype, width=4, n_cells=1)
    signs = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, args: signs.append((args[0] > 0).flatten(1)))
    model(torch.randn(4, 3, 8, 8))
    codes = torch.cat(signs, dim=1)
    assert bool((codes == codes[0]).all()) is singular
