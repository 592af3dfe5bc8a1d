"""Partial channels and edge normalisation of PC-DARTS: what is saved, what passes by, and when alphas learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from naswot.data import get_data
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import softmax_weights
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.seeding import seeded, torch_generator
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet
from naswot.supernets._edges import MixedEdge, shuffled
from naswot.training.splits import three_way_split

ONE = Mixing({"cell": torch.tensor([[0.0, 1.0]])})


class Doubled(nn.Module):
    """Something to tell the channels by that went through."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return 2.0 * x[:, :, :: self.stride, :: self.stride]


def edge(partial, stride=1):
    def build(name, channels, stride):
        return Doubled(stride)

    return MixedEdge(("cell", 0), ("none", "double"), build, channels=8, stride=stride, partial=partial)


def saved_bytes(net, images, mixing):
    """Bytes that the mixed edges keep for the backward pass, tensors that are kept twice counted once."""
    seen = {}

    def keep(tensor):
        if not isinstance(tensor, nn.Parameter):
            seen[tensor.data_ptr(), tensor.shape] = tensor.numel() * tensor.element_size()
        return tensor

    within = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    for module in net.modules():
        if isinstance(module, MixedEdge):
            module.register_forward_pre_hook(lambda *_: within.__enter__())
            module.register_forward_hook(lambda *_: within.__exit__(None, None, None))
    loss = net(images, mixing).sum()
    total = sum(seen.values())
    loss.backward()  # everything lives until here, so that no place in memory is counted for another one
    return total


# --------------------------------------------------------------------------------------------------------- the channels


@pytest.mark.parametrize("space", ["nasbench201", "darts"])
@pytest.mark.parametrize("partial", [2, 4])
def test_edges_keep_about_one_kth_of_the_bytes(space, partial):
    images = torch.rand(4, 3, 16, 16, generator=torch_generator(0))
    found = {}
    for k in (1, partial):
        with seeded(0):
            net = make_supernet(space, width=16, n_cells=3 if space == "darts" else 1, partial=k)
        found[k] = saved_bytes(net, images, Mixing(softmax_weights(net)))
    assert 0.9 / partial < found[partial] / found[1] < 1.3 / partial


def test_interleaving_is_a_permutation_of_the_channels():
    x = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 3, 3)
    found = shuffled(x, 4)
    assert found[0, :, 0, 0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert torch.equal(found, found[:1, :, :1, :1].expand_as(found))
    back = shuffled(found, 3)  # rows become columns and rows again
    assert torch.equal(back, x)


def test_the_first_kth_goes_through_and_the_others_pass_by_as_they_are():
    x = torch.randn(2, 8, 5, 5, generator=torch_generator(0))
    found = edge(partial=4)(x, ONE)
    first, by = x[:, :2], x[:, 2:]
    assert torch.equal(found[:, ::4], 2.0 * first)  # places 0 and 4 of 8
    rest = [i for i in range(8) if i % 4]
    wanted = shuffled(torch.cat([first, by], dim=1), 4)[:, rest]
    assert torch.equal(found[:, rest], wanted)
    assert {float(channel) for channel in found[:, rest, 0, 0].flatten()} == {
        float(c) for c in by[:, :, 0, 0].flatten()
    }


@pytest.mark.parametrize("size", [6, 5])
def test_what_passes_by_a_reduction_is_its_largest_of_two_by_two(size):
    x = torch.randn(2, 8, size, size, generator=torch_generator(0))
    found = edge(partial=4, stride=2)(x, ONE)
    assert found.shape == (2, 8, 3, 3)
    assert torch.equal(found[:, ::4], 2.0 * x[:, :2, ::2, ::2])
    assert float(found[0, 1, 0, 0]) == float(x[0, 2, :2, :2].max())
    if size == 5:
        assert float(found[0, 1, 2, 2]) == float(x[0, 2, 4, 4])  # the rest of an odd size


def test_operations_of_partial_channels_are_smaller():
    with seeded(0):
        nets = [make_supernet("darts", width=16, n_cells=3, partial=k) for k in (1, 4)]
    counts = [sum(p.numel() for m in net.modules() if isinstance(m, MixedEdge) for p in m.parameters()) for net in nets]
    assert 1 / 16 < counts[1] / counts[0] < 1 / 4  # convolutions 1/16, filters of single channels 1/4


# ------------------------------------------------------------------------------------------------------------ the edges


@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_weights_of_edges_sum_to_one_at_each_node(space):
    with seeded(0):
        net = make_supernet(space, width=4, n_cells=1, edge_normalisation=True)
        for alpha in net.architecture_parameters():
            alpha.data.normal_()
    groups = [group for group in net.groups if group.kind == "edge"]
    assert len(groups) == len(net.operation_groups)
    for group in groups:
        table = softmax_weights(net)[group.name]
        wanted = {"nasbench201": [1, 2, 3], "darts": [2, 3, 4, 5]}[space]
        assert (table > 0).sum(1).tolist() == wanted  # the nodes before
        assert torch.allclose(table.sum(1), torch.ones(len(table)))


def test_an_edge_of_weight_nothing_is_not_heard():
    with seeded(0):
        net = make_supernet("nasbench201", width=4, n_cells=1, edge_normalisation=True).eval()
        images = torch.rand(2, 3, 8, 8)
    cell = torch.full((6, 5), 0.2)
    last = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # node 3 hears node 0 only
    changed = cell.clone()
    changed[[0, 1, 2, 4, 5]] = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
    first, second = (net(images, Mixing({"cell": table, "inputs": last})) for table in (cell, changed))
    assert torch.equal(first, second)
    changed[3] = changed[0]
    assert not torch.equal(first, net(images, Mixing({"cell": changed, "inputs": last})))


def test_architectures_are_read_off_by_both_kinds_of_weights():
    with seeded(0):
        net = make_supernet("darts", width=4, n_cells=1, edge_normalisation=True)
    strengths = {group.name: torch.zeros(group.shape) for group in net.groups}
    for name in ("normal", "reduce"):
        strengths[name][:, 4] = torch.arange(14, 0, -1) / 100  # by operations alone the first two inputs of each node
        strengths[f"{name}_inputs"][:] = torch.arange(1.0, 6.0) ** 4  # but the last two are weighed most
    by_both = net.derive(strengths)
    alone = net.derive({name: strengths[name] for name in ("normal", "reduce")})
    sources = [
        [sorted(s for _, s in cell.edges[2 * n : 2 * n + 2]) for n in range(4)] for cell in net.space.cells(by_both)
    ]
    assert sources == [[[0, 1], [1, 2], [2, 3], [3, 4]]] * 2
    assert {source for cell in net.space.cells(alone) for _, source in cell.edges} == {0, 1}


# ----------------------------------------------------------------------------------------------------------- the search


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(range(160)), valid_fraction=0.5)


def test_the_published_constants():
    plan = get_plan("pc_darts")
    assert (plan.partial, plan.edge_normalisation, plan.batch_size) == (4, True, 256)
    assert (plan.weights.learning_rate, plan.weights.final_learning_rate, plan.weights.weight_decay) == (0.1, 0.0, 3e-4)
    assert (plan.alphas.learning_rate, plan.alphas.weight_decay) == (6e-4, 1e-3)
    assert [(stage.epochs, stage.warmup) for stage in plan.stages] == [(50, 15)]
    assert plan.supernet_options == {"partial": 4, "edge_normalisation": True}


def test_alphas_and_weights_of_edges_stay_bit_for_bit_before_epoch_15(parts):
    plan = replace(get_plan("pc_darts"), batch_size=64)
    build = {"width": 4, "n_cells": 1}
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=64), plan, build=build) as session:
        first = {name: alpha.detach().clone() for name, alpha in session.supernet.alphas.items()}
        assert set(first) == {"cell", "inputs"}
        moved = []
        for _ in range(17):
            session.next_epoch()
            moved.append([not torch.equal(first[name], alpha) for name, alpha in session.supernet.alphas.items()])
    assert moved == [[False, False]] * 15 + [[True, True]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pc_darts", "pc_darts_rs", "pc_darts_adv"])
def test_the_presets_search_the_darts_space(parts, name):
    plan = replace(get_plan(name), batch_size=64).lasting(2)
    assert plan.stages[0].warmup == 0
    result = run_supernet_search("darts", *parts, plan, build={"width": 4, "n_cells": 3})
    assert get_space("darts").parse(result.arch) == result.genotype
    assert {group.kind for group in result.supernet.groups} == {"operation", "edge"}
