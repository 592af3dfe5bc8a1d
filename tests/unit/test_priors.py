"""Zero-cost scores before a search: first alphas, and operations that are not tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from naswot.data import get_data
from naswot.differentiable.operation_scores import operation_scores
from naswot.differentiable.plan import AlphaSteps, Hook, SearchPlan, Stage
from naswot.differentiable.priors import AlphaPrior, PruneOperations, standardised
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.proxy import get_proxy
from naswot.space import get_space
from naswot.training.splits import three_way_split
from naswot.types import Batch

BUILD = {"width": 4, "n_cells": 1}
FLOPS = get_proxy("flops")
CHEAP = replace(FLOPS, function=lambda seen, passes: FLOPS(seen, passes), higher_is_better=False)


@pytest.fixture(scope="module")
def parts():
    few = get_data("digits").subset(torch.arange(128))
    return three_way_split(few, valid_fraction=0.5)


def session_of(parts, plan, space="nasbench201", build=BUILD, seed=0):
    return SearchSession(get_space(space), ImageTask(*parts, batch_size=16), plan, build=build, seed=seed)


# ----------------------------------------------------------------------------------------------------------- the prior


def test_alphas_rise_in_the_order_of_what_is_lost_without_an_operation(parts):
    with session_of(parts, SearchPlan()) as plain, session_of(parts, SearchPlan(hooks=(AlphaPrior("flops"),))) as prior:
        before, after = plain.supernet.alphas["cell"].detach(), prior.supernet.alphas["cell"].detach()
        weights = plain.relaxation.expected(prior.supernet)["cell"]
        rise = (after - before).double()
        scores = operation_scores(plain.supernet, Batch(*plain.task.fixed_batch()), "flops")["cell"]
    assert torch.allclose(rise.mean(1), torch.zeros(6, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(rise.std(1, correction=0), torch.ones(6, dtype=torch.float64), atol=1e-5)
    order = torch.argsort(rise, dim=1, stable=True)
    lost = (-scores).gather(1, order)
    assert bool((lost.diff(dim=1) >= 0).all())
    assert after.argmax(1).tolist() == [3] * 6  # the 3x3 convolution costs most
    assert torch.allclose(weights.sum(1), torch.ones(6))
    assert bool((weights > 0).all())


def test_strength_scales_the_prior_and_zero_leaves_the_alphas_bit_for_bit(parts):
    found = []
    for strength in (0.0, 1.0, 3.0):
        with session_of(parts, SearchPlan(hooks=(AlphaPrior(strength=strength, mode="only"),))) as session:
            found.append(session.supernet.alphas["cell"].detach().clone())
    with session_of(parts, SearchPlan()) as session:
        assert torch.equal(found[0], session.supernet.alphas["cell"])
    assert torch.allclose(found[2] - found[0], 3.0 * (found[1] - found[0]), atol=1e-6)
    assert float((found[1] - found[0]).abs().max()) > 1.0


def test_alphas_of_edges_and_the_weights_stay(parts):
    with session_of(parts, SearchPlan(edge_normalisation=True, hooks=(AlphaPrior("flops"),))) as prior:
        found = prior.supernet.state_dict()
    with session_of(parts, SearchPlan(edge_normalisation=True)) as plain:
        changed = {name for name, value in plain.supernet.state_dict().items() if not torch.equal(value, found[name])}
    assert changed == {"alphas.cell"}


def test_a_proxy_whose_lower_values_are_better_turns_the_order(parts):
    with session_of(parts, SearchPlan(hooks=(AlphaPrior(CHEAP),))) as session:
        assert session.supernet.alphas["cell"].argmin(1).tolist() == [3] * 6


def test_standardised_keeps_the_order_with_infinities_beyond_the_rest_and_zero_where_nothing_differs():
    inf, nan = torch.inf, torch.nan
    table = torch.tensor(
        [
            [1.0, 3.0, -inf, nan],
            [2.0, 2.0, 2.0, nan],
            [5.0, inf, -inf, 7.0],
            [inf, inf, nan, nan],
            [inf, -inf, nan, nan],
        ]
    ).double()
    found = standardised(table)
    assert found[0].tolist() == [-1.0, 1.0, -2.0, 0.0]
    assert found[1].tolist() == [0.0] * 4
    assert found[2].tolist() == [-1.0, 2.0, -2.0, 1.0]
    assert found[3].tolist() == [0.0] * 4
    assert found[4].tolist() == [1.0, -1.0, 0.0, 0.0]


def test_each_stage_begins_with_the_prior(parts):
    seen = []

    class Watch(Hook):
        def begin_stage(self, session):
            seen.append(session.supernet.alphas["cell"].argmax(1).tolist())

    stages = (Stage(epochs=1), Stage(epochs=1))
    with session_of(parts, SearchPlan(stages=stages, hooks=(AlphaPrior("flops"), Watch()))) as session:
        session.next_epoch()
        session.next_epoch()
    assert seen == [[3] * 6] * 2


# ------------------------------------------------------------------------------------------------------------- pruning


def test_the_operations_without_which_least_is_lost_are_not_built(parts):
    with session_of(parts, SearchPlan(hooks=(PruneOperations("flops", keep=2),))) as session:
        supernet = session.supernet
        assert supernet.allowed("cell").tolist() == [[False, False, True, True, False]] * 6
        assert {tuple(edge.operations) for cell in supernet.cells if hasattr(cell, "edges") for edge in cell.edges} == {
            ("2", "3")
        }


def test_what_was_dropped_never_comes_back_not_even_in_a_later_stage(parts):
    seen = []

    class Watch(Hook):
        def after_epoch(self, session):
            seen.append(
                (session.supernet.allowed("cell").clone(), session.relaxation.expected(session.supernet)["cell"])
            )

    stages = (Stage(epochs=1, keep=2), Stage(epochs=1, keep=1))
    hooks = (PruneOperations(keep=3), Watch())
    with session_of(parts, SearchPlan(stages=stages, hooks=hooks, alphas=AlphaSteps(learning_rate=0.5))) as session:
        first = session.supernet.allowed("cell").clone()
        while not session.ended:
            session.next_epoch()
        genotypes = [session.space.parse(row["arch"]) for row in session.history]
    assert first.sum(1).tolist() == [3] * 6
    assert [allowed.sum(1).tolist() for allowed, _ in seen] == [[3] * 6, [2] * 6]
    for allowed, weights in seen:
        assert not bool((allowed & ~first).any())
        assert not bool(weights[~first].any())
    assert all(bool(first[row, option]) for genotype in genotypes for row, option in enumerate(genotype))


def test_two_prunings_leave_what_both_of_them_leave(parts):
    hooks = (PruneOperations("flops", keep=3), PruneOperations(CHEAP, keep=1))
    with session_of(parts, SearchPlan(hooks=(hooks[0],))) as session:
        first = session.supernet.allowed("cell").clone()
    with pytest.raises(OptionError, match="nothing to search"), session_of(parts, SearchPlan(hooks=hooks)):
        pass
    with session_of(parts, SearchPlan(hooks=(hooks[0], replace(hooks[1], keep=2)))) as session:
        both = session.supernet.allowed("cell")
    assert both.sum(1).tolist() == [2] * 6
    assert not bool((both & ~first).any())
    with session_of(parts, SearchPlan(hooks=(hooks[0], PruneOperations("flops", keep=2)))) as session:
        assert session.supernet.allowed("cell").tolist() == [[False, False, True, True, False]] * 6


def test_an_operation_that_an_architecture_can_take_is_left_in_each_row(parts):
    plan = SearchPlan(hooks=(PruneOperations(CHEAP, keep=1),))  # for which none is the best of all
    session = session_of(parts, plan, "robustdarts_s3")
    found = plan.hooks[0].allowed(session)
    assert (
        found["normal"].tolist() == found["reduce"].tolist() == [[False, True, False]] * 14
    )  # none, skip, convolution


def test_rows_of_fewer_operations_keep_all_and_nothing_kept_is_refused(parts):
    with session_of(parts, SearchPlan(hooks=(PruneOperations(keep=9),))) as session:
        assert bool(session.supernet.allowed("cell").all())
    with pytest.raises(OptionError, match="at least 1 operation of each row, but got keep=0"):
        PruneOperations(keep=0)


# ----------------------------------------------------------------------------------------------------- with the search


@pytest.mark.parametrize("hook", [AlphaPrior(), PruneOperations(keep=3)])
def test_a_resumed_search_equals_an_uninterrupted_one(parts, hook, tmp_path):
    plan = SearchPlan(hooks=(hook,), batch_size=32, stages=(Stage(epochs=2),))
    first = run_supernet_search("nasbench201", *parts, plan, build=BUILD)

    class Interrupted(Exception):
        pass

    def stop(row):
        raise Interrupted

    path = tmp_path / "search.pt"
    with pytest.raises(Interrupted):
        run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path, on_epoch=stop)
    resumed = run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path)
    assert resumed.history == first.history
    mine, wanted = resumed.supernet.state_dict(), first.supernet.state_dict()
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)
