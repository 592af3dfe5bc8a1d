"""Supernets one by one: the networks of their spaces within them, cells worked out on paper, published rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from naswot.data import get_data
from naswot.differentiable.plan import AlphaSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import softmax_weights
from naswot.differentiable.searching import run_supernet_search
from naswot.errors import OptionError
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet, only_chosen
from naswot.supernets._edges import MixedEdge
from naswot.training.splits import three_way_split

SHOT = [f"nasbench1shot1_{number}" for number in (1, 2, 3)]
SMALL = {"width": 4, "n_cells": 3}


def images(n=3, size=9):
    return torch.randn(n, 3, size, size, generator=torch_generator(0))


def supernet_of(name, *, seed=0, **options):
    with seeded(seed):
        return make_supernet(name, **options)


def layers_in_order(model, x):
    """Layers that have a state, in the order in which they are called."""
    called = []
    layers = [m for m in model.modules() if not list(m.children()) and (list(m.parameters()) or list(m.buffers()))]
    handles = [layer.register_forward_hook(lambda layer, *_: called.append(layer)) for layer in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return called


# ----------------------------------------------------------------------------------------- as the networks of the space


@pytest.mark.parametrize(
    ("name", "options", "built", "seed"),
    [
        ("nasbench201", {"width": 4, "n_cells": 2, "affine": True}, {"width": 4, "n_cells": 2}, 0),
        ("nasbench201", {"width": 4, "n_cells": 2, "affine": True}, {"width": 4, "n_cells": 2}, 7),
        ("robustdarts_s2", {**SMALL, "affine": True}, SMALL, 1),
        ("mobilenet", {"width_multiplier": 0.1}, {"width_multiplier": 0.1}, 2),
        ("mobilenet", {"width_multiplier": 0.1, "stem": "imagenet"}, {"width_multiplier": 0.1, "stem": "imagenet"}, 3),
    ],
)
def test_the_extracted_network_with_its_weights_is_the_network_of_the_space(name, options, built, seed):
    """Layer by layer in the order of calls, then logits bit for bit, in training and in evaluation."""
    space = get_space(name)
    genotype = space.sample(numpy_generator(seed))
    alone = supernet_of(name, **options).extract(genotype)
    with seeded(1):
        model = space.build(genotype, **built)
    ours, theirs = layers_in_order(alone.eval(), images()), layers_in_order(model.eval(), images())
    assert len(ours) == len(theirs) > 5
    with torch.no_grad():
        assert not torch.allclose(alone(images()), model(images()))
    for layer, other in zip(ours, theirs, strict=True):
        other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert torch.equal(alone.train()(images()), model.train()(images()))
        assert torch.equal(alone.eval()(images()), model.eval()(images()))


# ----------------------------------------------------------------------------------------------------- NAS-Bench-1Shot1


@pytest.mark.parametrize(
    ("name", "inputs"), list(zip(SHOT, ((3, 4), (2, 3, 4), (2, 3, 4, 5)), strict=True)), ids=lambda value: str(value)
)
def test_blocks_with_a_choice_and_the_output_weigh_their_inputs(name, inputs):
    blocks, weighed, output = supernet_of(name, width=4, n_cells=1).groups
    n_blocks = get_space(name).n_blocks
    assert blocks.shape == (n_blocks, 3)
    assert tuple(map(len, weighed.options)) == inputs
    assert output.options == (tuple(map(str, range(n_blocks + 1))),)
    assert [group.kind for group in (blocks, weighed, output)] == ["operation", "edge", "edge"]


def test_a_cell_worked_out_by_hand():
    """Blocks sum their weighed inputs; the output is the weighed blocks side by side and the weighed projection."""
    supernet = supernet_of("nasbench1shot1_1", width=4, n_cells=1).eval()
    for seed, alpha in enumerate(supernet.alphas.values()):
        alpha.data.copy_(torch.randn(alpha.shape, generator=torch_generator(seed)))
    mixing = Mixing(softmax_weights(supernet))
    operations, inputs, output = (mixing.weights[name].detach() for name in ("blocks", "inputs", "output"))
    cell, x = supernet.cells[0], torch.randn(2, 4, 5, 5, generator=torch_generator(9))

    def block(number, total):
        options = cell.blocks[number - 1].operations.values()
        return sum(weight * option(total) for weight, option in zip(operations[number - 1], options, strict=True))

    with torch.no_grad():
        first = block(1, cell.projections[0](x))
        second = block(2, cell.projections[1](x) + first)  # reads all there is: nothing to weigh
        third = block(3, inputs[0, 0] * cell.projections[2](x) + inputs[0, 1] * first + inputs[0, 2] * second)
        read = (cell.projections[3](x), first, second, third)
        fourth = block(4, sum(weight * state for weight, state in zip(inputs[1], read, strict=True)))
        beside = [weight * state for weight, state in zip(output[0, 1:], (first, second, third, fourth), strict=True)]
        expected = output[0, 0] * cell.projections[4](x) + torch.cat(beside, 1)
        assert torch.allclose(cell(x, mixing), expected, atol=1e-6)
    assert cell.projections[4][0].weight.shape == (16, 4, 1, 1)


@pytest.mark.parametrize("name", SHOT)
def test_strongest_inputs_and_operations_are_derived(name):
    supernet, space = supernet_of(name, width=4, n_cells=1), get_space(name)
    for seed in range(10):
        generator = torch_generator(seed)
        strengths = {group.name: torch.rand(group.shape, generator=generator) for group in supernet.groups}
        genotype = supernet.derive(strengths)
        assert list(genotype[: space.n_blocks]) == strengths["blocks"].argmax(1).tolist()
        rows = dict(zip(supernet.weighed, strengths["inputs"].tolist(), strict=True))
        rows[space.n_blocks + 1] = strengths["output"][0].tolist()
        for block, (parents, wanted) in enumerate(zip(space.parents(genotype), space.n_parents, strict=True), start=1):
            assert len(parents) == wanted
            row = rows.get(block, [1.0] * block)[:block]
            assert min(row[parent] for parent in parents) >= max(
                (row[other] for other in range(block) if other not in parents), default=0.0
            )


def test_a_block_that_nothing_reads_is_neither_executed_nor_extracted():
    space = get_space("nasbench1shot1_2")
    text = "maxpool3x3<-0|conv1x1-bn-relu<-1|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,2|output<-0,1,4"
    genotype = space.parse(text)
    assert space.read_blocks(genotype) == (1, 2, 4)
    supernet = supernet_of(space.name, width=4, n_cells=1)
    tables = supernet.chosen(genotype)
    assert tables["blocks"].sum(1).tolist() == [1, 1, 0, 1]
    assert tables["inputs"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]]
    assert tables["output"].tolist() == [[1, 1, 0, 0, 1]]
    cell = supernet.extract(genotype).supernet.cells[0]
    kept = [not isinstance(projection, nn.Identity) for projection in cell.projections]
    assert kept == [True, False, False, True, True]  # to blocks 1 and 4 and to the output
    unit = 2 * 4  # scales and shifts of 4 channels
    first_cell = (16 + unit) * 2 + (64 + 32) + (16 + unit) + (9 * 16 + unit)
    assert sum(parameter.numel() for parameter in cell.parameters()) == first_cell


def test_a_block_without_a_choice_that_nothing_reads_is_not_extracted_either():
    space = get_space("nasbench1shot1_3")
    operation = "conv3x3-bn-relu"
    text = "|".join(f"{operation}<-{parents}" for parents in ("0", "0", "2", "0,2", "2,3")) + "|output<-4,5"
    supernet = supernet_of(space.name, width=4, n_cells=1)
    cell = supernet.extract(space.parse(text)).supernet.cells[0]
    kept = [not isinstance(projection, nn.Identity) for projection in cell.projections]
    assert kept == [False, True, False, True, False, False]
    assert isinstance(cell.blocks[0].operations["0"], nn.Identity)


def test_inputs_of_which_nothing_is_executed_are_zeros():
    """As where a single path is sampled whose only parent is a block that is left out."""
    supernet = supernet_of("nasbench1shot1_1", width=4, n_cells=1).eval()
    tables = {group.name: torch.zeros(group.shape) for group in supernet.groups}
    tables["blocks"][2, 0] = 1.0
    cell, x = supernet.cells[0], torch.randn(2, 4, 5, 5, generator=torch_generator(9))
    tables["inputs"][0, 1] = tables["output"][0, 3] = 1.0
    with torch.no_grad():
        found = cell(x, only_chosen(tables))
        alone = cell.blocks[2].operations["0"](torch.zeros(2, 4, 5, 5))
    assert torch.equal(found, torch.cat([torch.zeros(2, 8, 5, 5), alone, torch.zeros(2, 4, 5, 5)], 1))


def test_running_statistics_move_by_a_tenth():
    """Not by 0.997 of what is new, as in the original, whose statistics are those of the last batch."""
    supernet = supernet_of("nasbench1shot1_3", width=4, n_cells=1)
    assert {layer.momentum for layer in supernet.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}


# ------------------------------------------------------------------------------------------------------------ MobileNet


def test_the_first_block_of_a_stage_has_no_identity():
    supernet = supernet_of("mobilenet", width_multiplier=0.1)
    sizes = [len(row) for row in supernet.groups[0].options]
    assert [row for row, n in enumerate(sizes) if n == 6] == [0, 4, 8, 12, 16, 20]
    assert sorted(set(sizes)) == [6, 7]
    assert supernet.allowed("blocks").sum() == 6 * 6 + 15 * 7


def test_a_residual_block_adds_its_input_once():
    """The sum of whole blocks on the simplex is the input and the sum of their convolutions, as in the original."""
    supernet = supernet_of("mobilenet", width_multiplier=0.1).eval()
    mixing = Mixing(softmax_weights(supernet))
    edge, x = supernet.blocks[1], torch.randn(2, 8, 5, 5, generator=torch_generator(3))
    weights = mixing.weights["blocks"][1].detach()
    with torch.no_grad():
        convolved = [weights[i] * edge.operations[str(i)].layers(x) for i in range(6)]
        assert torch.allclose(edge(x, mixing), x + sum(convolved), atol=1e-6)
    assert isinstance(edge.operations["6"], nn.Identity)


def test_a_block_needs_an_option():
    supernet = supernet_of("mobilenet", width_multiplier=0.1)
    weights = {"blocks": torch.zeros(21, 7)}
    with pytest.raises(OptionError, match="but row 0 has none"):
        supernet(images(), only_chosen(weights))


# ------------------------------------------------------------------------------------------------------ DARTS and parts


def test_edges_of_s1_have_the_operations_of_the_space():
    supernet, space = supernet_of("robustdarts_s1", **SMALL), get_space("robustdarts_s1")
    assert tuple(group.options for group in supernet.groups) == space.operations
    for cell in supernet.cells:
        assert all(len(edge.operations) == 2 for edge in cell.edges)


def test_none_takes_weight_in_s3_but_is_never_derived():
    """However much it weighs; edges are ranked by what else they have."""
    supernet = supernet_of("robustdarts_s3", **SMALL)
    assert supernet.groups[0].options[0] == ("none", "skip_connect", "sep_conv_3x3")
    table = torch.tensor([[0.9, 0.04, 0.06]]).repeat(14, 1)
    table[9:] = torch.tensor([0.5, 0.3, 0.2])  # of node 5 all edges
    table[12] = torch.tensor([0.1, 0.4, 0.5])
    table[10] = torch.tensor([0.1, 0.45, 0.45])
    plans = supernet.space.cells(supernet.derive({"normal": table, "reduce": table}))
    assert plans[0].edges[:6] == tuple(("sep_conv_3x3", source) for source in (0, 1, 0, 1, 0, 1))
    assert plans[0].edges[6:] == (("skip_connect", 1), ("sep_conv_3x3", 3))


def test_noise_is_derived_in_s4():
    supernet = supernet_of("robustdarts_s4", **SMALL)
    table = torch.tensor([[0.3, 0.7]]).repeat(14, 1)
    table[3] = torch.tensor([0.8, 0.2])  # from 1 to 3
    normal, _ = supernet.space.cells(supernet.derive({"normal": table, "reduce": table}))
    assert normal.edges[2:4] == (("sep_conv_3x3", 0), ("noise", 1))


def test_s4_draws_its_noise_in_evaluation_too_and_its_weight_learns():
    supernet = supernet_of("robustdarts_s4", **SMALL).eval()
    mixing = Mixing(softmax_weights(supernet))
    found = []
    for seed in (1, 1, 2):
        with seeded(seed):
            found.append(supernet(images(), mixing))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    found[0].square().sum().backward()
    assert bool((supernet.alphas["normal"].grad[:, 0] != 0).all())


def test_a_row_of_none_only_is_taken_last():
    """Where nothing real is allowed on an edge, a node keeps others; only one that needs it gets its first option."""
    allowed = torch.ones(14, 3, dtype=torch.bool)
    allowed[[2, 4], 1:] = False  # from 0 and from 2 to node 3, of its three inputs
    supernet = supernet_of("robustdarts_s3", allowed={"normal": allowed}, **SMALL)
    strengths = {"normal": torch.full((14, 3), 0.1) * allowed, "reduce": torch.full((14, 3), 0.1)}
    strengths["normal"][2] = torch.tensor([0.9, 0.8, 0.9])
    normal, _ = supernet.space.cells(supernet.derive(strengths))
    assert normal.edges[2:4] == (("skip_connect", 0), ("skip_connect", 1))
    allowed[4, 1:] = True
    supernet = supernet_of("robustdarts_s3", allowed={"normal": allowed}, **SMALL)
    normal, _ = supernet.space.cells(supernet.derive(strengths))
    assert [source for _, source in normal.edges[2:4]] == [1, 2]


# ---------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nasbench1shot1_1", {"width": 0}),
        ("nasbench1shot1_1", {"n_cells": 0}),
        ("nasbench1shot1_1", {"width": 6, "partial": 4}),
        ("robustdarts_s2", {"width": 7}),
        ("mobilenet", {"stem": "cifar"}),
        ("mobilenet", {"width": 4}),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options):
    with pytest.raises(OptionError):
        make_supernet(name, **options)


def test_partial_channels_of_a_block_pass_the_others_by():
    supernet = supernet_of("nasbench1shot1_1", width=8, n_cells=1, partial=4).eval()
    edge = next(module for module in supernet.modules() if isinstance(module, MixedEdge))
    x = torch.randn(2, 8, 5, 5, generator=torch_generator(3))
    with torch.no_grad():
        found = edge(x, Mixing({"blocks": torch.zeros(4, 3)}))
    assert torch.equal(found, torch.stack([0 * x[:, :2], x[:, 2:4], x[:, 4:6], x[:, 6:]], 2).flatten(1, 2))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nasbench1shot1_1", {"width": 4, "n_cells": 1}),
        ("robustdarts_s1", SMALL),
        ("robustdarts_s4", SMALL),
        ("mobilenet", {"width_multiplier": 0.1}),
    ],
)
def test_a_search_finds_an_architecture_and_its_gradient_moves_all_alphas(name, options):
    parts = three_way_split(get_data("digits").subset(torch.arange(80)), valid_fraction=0.5)
    plan = replace(get_plan("darts"), batch_size=32, alphas=AlphaSteps(weight_decay=0.0)).lasting(1)
    plans = plan, replace(plan, architect=None)
    found, untouched = (run_supernet_search(name, *parts, each, build=options) for each in plans)
    assert found.space.is_valid(found.genotype)
    for group in found.supernet.groups:
        moved = found.supernet.alphas[group.name] != untouched.supernet.alphas[group.name]
        assert bool(moved[group.present()].all())
