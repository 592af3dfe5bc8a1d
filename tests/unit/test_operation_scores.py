"""Scores of single operations of a supernet, and what a supernet's architectures decide."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from naswot import measure
from naswot.differentiable.decisions import Edge, Settled, decisions_of
from naswot.differentiable.operation_scores import importances, operation_scores
from naswot.errors import InputError, OptionError
from naswot.proxy import get_proxy
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.supernet import Mixing, list_supernets, make_supernet
from naswot.types import Batch

SMALL = {"mobilenet": {}, "ptb_rnn": {"width": 4, "n_classes": 7}}


def batch_of(n=8, size=6):
    rng = torch_generator(1)
    return Batch(torch.randn(n, 3, size, size, generator=rng), torch.randint(0, 10, (n,), generator=rng))


def supernet_of(name, *, seed=0, **options):
    options = {"width": 6, "n_cells": 1, **options} if name not in SMALL else {**SMALL[name], **options}
    with seeded(seed):
        return make_supernet(name, **options)


# ----------------------------------------------------------------------------------------------------- operation scores


@pytest.mark.parametrize("proxy", ["naswot", "synflow", "grad_norm"])
def test_score_without_an_operation_is_that_of_a_supernet_from_which_it_was_cut_out(proxy):
    supernet, batch = supernet_of("nasbench201", width=4), batch_of()
    supernet.alphas["cell"].data.copy_(torch.randn(6, 5, generator=torch_generator(2)))
    found = operation_scores(supernet, batch, proxy, seed=5)["cell"]

    cut = copy.deepcopy(supernet)
    weights = torch.softmax(supernet.alphas["cell"].detach(), dim=1)
    for layer in cut.cells:
        if hasattr(layer, "edges"):
            del layer.edges[2].operations["3"]  # the 3x3 convolution of the third edge
    weights[2] = torch.stack([w / (1.0 - weights[2, 3]) if i != 3 else w * 0.0 for i, w in enumerate(weights[2])])
    wanted = measure(cut.at(Mixing({"cell": weights})), batch, proxy, seed=5)[proxy]
    assert found[2, 3].item() == pytest.approx(wanted, rel=1e-6)
    assert len(set(found.flatten().tolist())) > 10  # the options are told apart


def test_score_of_an_operation_alone_is_that_of_a_supernet_with_nothing_else_in_the_row():
    supernet, batch = supernet_of("nasbench201", width=4), batch_of()
    found = operation_scores(supernet, batch, mode="only")["cell"]
    alone = copy.deepcopy(supernet)
    for layer in alone.cells:
        if hasattr(layer, "edges"):
            for option in "0134":
                del layer.edges[5].operations[option]
    weights = torch.full((6, 5), 0.2)
    weights[5] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    wanted = measure(alone.at(Mixing({"cell": weights})), batch, "naswot")["naswot"]
    assert found[5, 2].item() == pytest.approx(wanted, rel=1e-6)


def test_an_operation_that_is_not_executed_is_not_counted():
    supernet = supernet_of("nasbench201", width=4)
    with_all = measure(supernet.at(Mixing({"cell": torch.full((6, 5), 0.2)})), batch_of(), "flops")["flops"]
    without = operation_scores(supernet, batch_of(), "flops", "without")["cell"]
    lost = with_all - without[0]
    assert lost[0] == lost[1] == 0  # none, skip
    assert lost[3] == 9 * lost[2] > 0  # convolutions 3x3 and 1x1


def test_options_that_are_not_there_are_nan_and_so_is_a_row_without_its_only_one():
    allowed = {"cell": torch.ones(6, 5, dtype=torch.bool)}
    allowed["cell"][1] = torch.tensor([False, False, True, False, False])
    allowed["cell"][2, 4] = False
    supernet = supernet_of("nasbench201", width=4, allowed=allowed)
    without, only = (operation_scores(supernet, batch_of(4), "flops", mode)["cell"] for mode in ("without", "only"))
    assert without.isnan()[1].tolist() == [True] * 5
    assert only.isnan()[1].tolist() == [True, True, False, True, True]
    assert without.isnan()[2].tolist() == only.isnan()[2].tolist() == [False] * 4 + [True]
    assert without.isnan().sum() == 6


def test_what_cannot_be_scored_is_the_worst_infinity_and_what_never_can_an_error():
    supernet, proxy = supernet_of("nasbench201", width=4), get_proxy("naswot")

    def fails_without_pooling(seen, passes):
        mixing = passes.model.mixing
        if mixing.weights["cell"][0, 4] == 0.0:
            raise InputError("no pooling")
        return torch.tensor(float(mixing.weights["cell"][3, 0] == 0.0))

    for better, bad in ((True, -math.inf), (False, math.inf)):
        picky = replace(proxy, function=fails_without_pooling, observe={}, higher_is_better=better)
        found = operation_scores(supernet, batch_of(4), picky)["cell"]
        assert found[0, 4].item() == bad
        assert found[3, 0].item() == 1.0
        assert found.isinf().sum() == 1

    def never(seen, passes):
        raise InputError("cannot be scored")

    with pytest.raises(InputError, match="cannot be scored"):
        operation_scores(supernet, batch_of(4), replace(proxy, function=never, observe={}))
    with pytest.raises(OptionError, match="'without' or 'only', but got 'with'"):
        operation_scores(supernet, batch_of(4), mode="with")


def test_the_supernet_comes_back_as_it_was_and_the_same_seed_gives_the_same_scores():
    supernet, batch = supernet_of("nasbench201", width=4), batch_of(4)
    supernet.train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    state = torch.get_rng_state()
    drawn = replace(get_proxy("naswot"), function=lambda seen, passes: passes.outputs().sum() + torch.randn(()))
    first, second = (operation_scores(supernet, batch, drawn, seed=3)["cell"][0] for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in supernet.state_dict().items())
    assert supernet.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, operation_scores(supernet, batch, drawn, seed=4)["cell"][0])


def test_a_good_score_speaks_for_an_operation_alone_and_against_one_left_out():
    scores, proxy = torch.tensor([1.0, 2.0]), get_proxy("naswot")
    assert importances(scores, proxy, "only").tolist() == [1.0, 2.0]
    assert importances(scores, proxy, "without").tolist() == [-1.0, -2.0]
    worse = replace(proxy, higher_is_better=False)
    assert importances(scores, worse, "only").tolist() == [-1.0, -2.0]
    assert importances(scores, worse, "without").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["robustdarts_s2", "nasbench1shot1_2"])
def test_every_kind_of_supernet_can_be_asked(name):
    supernet = supernet_of(name, n_cells=3)
    found = operation_scores(supernet, batch_of(2), "flops")
    for group in supernet.operation_groups:
        assert torch.equal(~found[group.name].isnan(), group.present())
        used = found[group.name][found[group.name].isfinite()]
        assert used.min() < used.max()


# ------------------------------------------------------------------------------------------------------------ decisions


def test_of_each_node_of_darts_two_edges_are_kept_and_none_is_never_taken():
    found = decisions_of(supernet_of("darts"))
    assert [(len(node.edges), node.n_kept) for node in found.nodes] == [(3, 2), (4, 2), (5, 2)] * 2
    assert [edge.row for edge in found.nodes[1].edges] == [5, 6, 7, 8]
    assert set(found.options["normal"]) == {(1, 2, 3, 4, 5, 6, 7)}
    assert found.scales == {}


def test_edge_normalisation_multiplies_the_edges_it_belongs_to():
    found = decisions_of(supernet_of("robustdarts_s2", edge_normalisation=True))
    assert [group.name for group in found.groups] == ["normal", "reduce"]
    assert found.scales[Edge("normal", 2)] == ("normal_inputs", 1, 0)
    assert found.scales[Edge("reduce", 13)] == ("reduce_inputs", 3, 4)
    assert len(found.scales) == 24


def test_of_each_block_of_1shot1_the_published_number_of_parents_is_kept():
    for space, wanted in (
        ("nasbench1shot1_1", [(3, 2), (4, 2), (5, 2)]),
        ("nasbench1shot1_2", [(2, 1), (3, 2), (4, 2), (5, 3)]),
        ("nasbench1shot1_3", [(2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]),
    ):
        found = decisions_of(supernet_of(space))
        assert [(len(node.edges), node.n_kept) for node in found.nodes] == wanted
        assert set(found.options["blocks"]) == {(0, 1, 2)}


@pytest.mark.parametrize("name", list_supernets())
def test_what_is_settled_at_random_is_the_architecture_that_comes_out(name):
    supernet, rng = supernet_of(name), numpy_generator(3)
    found = decisions_of(supernet)
    settled = Settled(found)
    for group, row in found.rows:
        options = found.options[group][row]
        settled.taken[group, row] = options[rng.integers(len(options))]
    for node in found.nodes:
        left = rng.permutation(len(node.edges))[node.n_kept :]
        settled.dropped |= {node.edges[i] for i in left}
    genotype = settled.genotype(supernet)
    wanted = settled.tables({group.name: group.present().float() for group in found.groups})
    chosen = supernet.chosen(supernet.space.check(genotype))
    for group in found.groups:
        read = chosen[group.name].any(1)  # blocks of 1Shot1 that reach no output are left out
        assert torch.equal(chosen[group.name][read], wanted[group.name][read])
        assert read.all() or name.startswith("nasbench1shot1") or not wanted[group.name][~read].any()
        assert read.sum() >= 2 or group.kind == "edge"


def test_leaving_out_one_option_keeps_all_other_rows_bit_for_bit():
    supernet = supernet_of("robustdarts_s3")
    weights = {
        name: torch.rand(3 * 14, generator=torch_generator(i)).view(14, 3)
        for i, name in enumerate(("normal", "reduce"))
    }
    settled = Settled(decisions_of(supernet), taken={("normal", 4): 2}, dropped={Edge("reduce", 3)})
    before, after = settled.mixing(weights), settled.mixing(weights, without=Edge("normal", 7, 1))
    others = torch.arange(14) != 7
    assert torch.equal(before.weights["normal"][others], after.weights["normal"][others])
    assert torch.equal(before.weights["reduce"], after.weights["reduce"])
    assert after.weights["normal"][7].tolist() == [weights["normal"][7, 0].item(), 0.0, weights["normal"][7, 2].item()]
    assert after.active["normal"][7] == (0, 2)
    assert before.weights["normal"][4].tolist() == [0.0, 0.0, 1.0]
    assert before.active["reduce"][3] == ()
    assert not before.weights["reduce"][3].any()
    assert torch.equal(before.weights["normal"][7], weights["normal"][7])
