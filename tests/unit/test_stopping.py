"""Stopping by the dominant eigenvalue: all published traces, the guard, going back, and searches that really do it."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from naswot.data import get_data
from naswot.differentiable.architects import FirstOrder, SecondOrder
from naswot.differentiable.monitors import HessianMonitor
from naswot.differentiable.plan import SearchPlan, WeightSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.stopping import NAME, EigenvalueAdapt, EigenvalueStop, early_stop
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.space import get_space
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}
NEVER = None

# (stop, return) of the three seeds by space, drop-path and weight decay; one file holds a search twice
PUBLISHED = {
    ("s1", "0.0", "0.0003"): [(22, 10), (22, 10), (30, 18)],
    ("s1", "0.0", "0.0009"): [(22, 10), (32, 20), (32, 20)],
    ("s1", "0.0", "0.0027"): [(42, 30), (40, 28), (34, 22)],
    ("s1", "0.0", "0.0081"): [NEVER, NEVER, (48, 36)],
    ("s1", "0.0", "0.0243"): [NEVER, NEVER, NEVER],
    ("s1", "0.0", "0.0729"): [(42, 30), (26, 14), NEVER],
    ("s1", "0.0", "0.2187"): [(22, 10), (26, 14), (32, 20)],
    ("s1", "0.2", "0.0003"): [(36, 24), NEVER, (38, 26)],
    ("s1", "0.4", "0.0003"): [NEVER, NEVER, (26, 14)],
    ("s1", "0.6", "0.0003"): [(22, 10), (24, 12), NEVER],
    ("s1", "0.8", "0.0003"): [(46, 34), (36, 24), (38, 26)],
    ("s3", "0.0", "0.0003"): [(34, 22), (30, 18), (24, 12)],
    ("s3", "0.0", "0.0009"): [(48, 36), (32, 20), (36, 24)],
    ("s3", "0.0", "0.0027"): [(46, 34), (46, 34), (34, 22), (22, 10)],
    ("s3", "0.0", "0.0081"): [NEVER, NEVER, NEVER],
    ("s3", "0.0", "0.0243"): [NEVER, NEVER, NEVER],
    ("s3", "0.0", "0.0729"): [NEVER, NEVER, NEVER],
    ("s3", "0.0", "0.2187"): [NEVER, NEVER, NEVER],
    ("s3", "0.2", "0.0003"): [NEVER, NEVER, (42, 30)],
    ("s3", "0.4", "0.0003"): [NEVER, (42, 30), NEVER],
    ("s3", "0.6", "0.0003"): [(34, 22), (36, 24), NEVER],
    ("s3", "0.8", "0.0003"): [(34, 22), (48, 36), (38, 26)],
}


@pytest.fixture(scope="module")
def traces(data_root):
    """Epochs and eigenvalues of each search, by space, drop-path and weight decay, in the order of the seeds."""
    found = defaultdict(list)
    files = set()
    with (data_root / "robustdarts_logs" / "hessian_traces.csv").open() as lines:
        for row in csv.DictReader(lines):
            key = row["space"], row["drop_path"], row["weight_decay"]
            files.add((*key, row["seed"]))
            if row["epoch"] == "0":
                found[key].append(([], []))
            found[key][-1][0].append(int(row["epoch"]))
            found[key][-1][1].append(float(row["max_eigenvalue"]))
    assert len(files) == 66
    return found


# ------------------------------------------------------------------------------------------------------------- the rule


def test_published_traces_stop_where_the_original_stops_and_nowhere_else(traces):
    assert {key: [early_stop(*trace) for trace in found] for key, found in traces.items()} == PUBLISHED


def test_published_traces_never_stop_before_the_guard(traces):
    for after in (10, 16, 30):
        for found in traces.values():
            for trace in found:
                stop = early_stop(*trace, not_before=after)
                assert stop is None or (stop[1] >= after and stop[0] == stop[1] + 12)


def test_the_measurement_after_the_last_epoch_ends_nothing(traces):
    for found in traces.values():
        for epochs, values in found:
            assert epochs[-2:] == [48, 49]
            assert early_stop(epochs, [*values[:-1], 1e6]) == early_stop(epochs[:-1], values[:-1])


def test_by_hand():
    assert early_stop(range(0, 50, 2), [1.0] * 10 + [2.0] * 15) == (22, 10)  # means 1.4 and 1
    assert early_stop(range(0, 50, 2), [1.0] * 11 + [2.0] * 14) == (24, 12)
    assert early_stop(range(0, 50, 2), [1.0] * 10 + [1.75] * 15) == (24, 12)  # 1.3 is not more than 1.3
    assert early_stop(range(0, 50, 2), [1.0] * 10 + [1.29] * 15) is None
    assert early_stop(range(0, 22, 2), [1.0] * 10 + [99.0]) is None  # epoch 20 would return to 8
    assert early_stop(range(4), [1.0, 1.0, 1.5, 1.0], window=1, lag=1, not_before=0) == (2, 1)
    assert early_stop(range(4), [1.0, 1.0, 1.5, 1.0], window=1, lag=1, not_before=2) is None
    assert early_stop([], []) is None


def test_a_measurement_that_is_missing_makes_its_neighbours_incomparable():
    epochs, values = list(range(0, 50, 2)), [1.0] * 10 + [2.0] * 6 + [8.0] * 9
    assert early_stop(epochs, values) == (22, 10)
    del epochs[9], values[9]
    assert early_stop(epochs, values) == (36, 24)  # the first after nine measurements in a row
    assert early_stop([0, 2, 6], [1.0, 1.0, 9.0], window=1, lag=1, not_before=0) is None
    assert early_stop([0, 4], [1.0, 9.0], window=1, lag=1, not_before=0) == (4, 0)
    assert early_stop([0, 4], [1.0, 9.0], window=1, lag=1, not_before=0, every=2) is None


def test_a_rise_from_below_zero_is_not_judged():
    assert early_stop(range(0, 50, 2), [-1.0] * 10 + [-2.0] * 15) is None
    assert early_stop(range(0, 50, 2), [0.0] * 10 + [2.0] * 15) == (28, 16)  # the first mean above 0


def test_epochs_and_values_have_to_fit_each_other():
    with pytest.raises(OptionError, match=r"one eigenvalue for each of some ascending epochs, but got 2 for \[0\]"):
        early_stop([0], [1.0, 2.0])
    with pytest.raises(OptionError, match="ascending"):
        early_stop([0, 2, 2], [1.0, 2.0, 3.0])


# ----------------------------------------------------------------------------------------------------- in a real search


@dataclass(frozen=True, kw_only=True)
class Planted(HessianMonitor):
    """Eigenvalues as they are wanted."""

    values: tuple[float, ...] = ()
    measured: ClassVar[list[int]] = []

    def measure(self, session):
        self.measured.append(session.epoch)
        value = self.values[min(session.epoch, len(self.values)) - 1]
        return {"eigenvalue": value} if value > 0 else {"hessian_warning": "it did not converge"}


@pytest.fixture(autouse=True)
def _forget():
    Planted.measured.clear()


@pytest.fixture(scope="module")
def parts():
    few = get_data("digits").subset(torch.arange(32))
    return three_way_split(few, valid_fraction=0.5)


def planned(*hooks, epochs=50, **options):
    return SearchPlan(batch_size=16, hooks=hooks, **options).lasting(epochs)


def session_of(parts, plan, **options):
    return SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=16), plan, build=BUILD, **options)


def values(session):
    return {name: value.clone() for name, value in session.supernet.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_darts_es_stops_after_epoch_22_of_the_logs_with_the_architecture_of_epoch_10(parts):
    rising = Planted(values=(1.0,) * 20 + (2.0,) * 30)
    plan = planned(EigenvalueStop(how=rising))
    result = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
    assert len(result.history) == 23  # the history counts from 1, the logs from 0
    assert result.epoch == 11
    assert result.arch == result.history[10]["arch"]
    assert "the dominant eigenvalue rose to more than 1.3 times that of epoch 11" in result.stopped
    assert Planted.measured == list(range(1, 24, 2))
    assert [row["epoch"] for row in result.history if NAME in row] == Planted.measured


def test_darts_es_does_nothing_where_nothing_rises_or_the_search_is_over(parts):
    quick = {"every": 1, "window": 1, "lag": 1, "after": 0}
    for trace in ((1.0, 1.0, 1.2, 1.2), (1.0, 1.0, 1.0, 9.0)):
        plan = planned(EigenvalueStop(how=Planted(values=trace), **quick), epochs=4)
        result = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
        assert (len(result.history), result.epoch, result.stopped) == (4, 4, None)


def test_an_eigenvalue_that_did_not_converge_is_told_and_the_search_goes_on(parts):
    trace = Planted(values=(1.0, 1.0, -1.0, 9.0, 9.0, 1.0))
    plan = planned(EigenvalueStop(how=trace, every=1, window=1, lag=1, after=0), epochs=6)
    result = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
    assert result.stopped is None
    assert [row.get("hessian_warning") for row in result.history] == [None, None, "it did not converge", *[None] * 3]


def test_the_value_of_a_monitor_that_measures_the_same_is_taken(parts):
    how = Planted(values=(1.0, 2.0, 3.0))
    hook = EigenvalueStop(how=how, every=1)
    for monitors, wanted in (
        ((replace(how, every=2),), [1, 2, 3]),
        ((replace(how, every=2, mode="eval"),), [1, 2, 2, 3]),
        ((), [1, 2, 3]),
    ):
        Planted.measured.clear()
        with session_of(parts, planned(hook, epochs=4), monitors=monitors) as session:
            rows = [session.next_epoch() for _ in range(3)]
        assert Planted.measured == wanted
        assert [row[NAME] for row in rows] == [1.0, 2.0, 3.0]


def test_the_real_eigenvalue_is_measured_where_no_monitor_does(parts):
    with session_of(parts, planned(EigenvalueStop(every=2), epochs=4)) as session:
        rows = [session.next_epoch() for _ in range(2)]
        kept = values(session)
        value = HessianMonitor().measure(session)["eigenvalue"]
        assert same(kept, values(session))
    assert rows[0][NAME] > 0
    assert NAME not in rows[1]
    assert value != rows[0][NAME]


ADA = {"every": 1, "window": 1, "lag": 1, "after": 1}


def test_darts_ada_goes_back_bit_for_bit_and_multiplies_the_weight_decay_up_to_the_cap(parts):
    always = Planted(values=tuple(2.0**i for i in range(9)))
    kept, decays, epochs = {}, [], []
    with session_of(parts, planned(EigenvalueAdapt(how=always, cap=0.02, **ADA), epochs=5)) as session:
        while not session.ended:
            row = session.next_epoch()
            decays.append(session.weight_optimizer.param_groups[0]["weight_decay"])
            epochs.append((row["epoch"], session.epoch))
            if row["epoch"] == session.epoch == 2:
                kept = values(session)
                momenta = [s["momentum_buffer"].clone() for s in session.weight_optimizer.state.values()]
            elif row["epoch"] != session.epoch:
                assert same(kept, values(session))
                back = [s["momentum_buffer"] for s in session.weight_optimizer.state.values()]
                assert all(map(torch.equal, momenta, back))
                assert row["note"].startswith(
                    "the dominant eigenvalue rose: back to epoch 2, with a weight decay of 0.0"
                )
        losses = [row["train_loss"] for row in session.history if row["epoch"] == 3]
        result = session.result_epoch
    assert epochs == [(1, 1), (2, 2), (3, 2), (3, 2), (3, 3), (4, 4), (5, 5)]
    assert decays == pytest.approx([3e-4, 3e-4, 3e-3, 0.02, 0.02, 0.02, 0.02])
    assert result == 5
    assert losses[0] == losses[1] == losses[2]  # its one step starts from the same weights, with the same batch
    assert len(kept) > 10


def test_more_weight_decay_takes_the_epoch_after_to_other_weights(parts):
    after = {}
    for factor in (1.5, 1e6):
        once = Planted(values=(1.0, 1.0, 2.0, 2.0, 2.0, 2.0))
        cap = 3e-4 * factor
        plan = planned(EigenvalueAdapt(how=once, factor=factor, cap=cap, **ADA), epochs=4)
        result = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
        assert [row["epoch"] for row in result.history] == [1, 2, 3, 3, 4]
        after[factor] = float(sum(p.detach().square().sum() for p in result.supernet.weight_parameters()))
    assert after[1e6] < 0.5 * after[1.5]


def test_an_epoch_after_going_back_is_the_same_epoch_again(parts):
    flat = Planted(values=(1.0,))
    with session_of(parts, planned(EigenvalueAdapt(how=flat, **ADA), epochs=4)) as session:
        for _ in range(3):
            session.next_epoch()
        first = values(session)
        session.rewind(2)
        assert not same(first, values(session))
        session.next_epoch()
        assert same(first, values(session))


def test_darts_ada_keeps_the_states_that_it_may_go_back_to_and_no_others(parts):
    with session_of(parts, planned(EigenvalueAdapt(how=Planted(values=(1.0,))), epochs=50)) as session:
        kept = {}
        for _ in range(40):
            session.next_epoch()
            kept[session.epoch] = list(session.snapshots)
        session.weight_optimizer.param_groups[0]["weight_decay"] = 0.03
        session.next_epoch()
        assert not session.snapshots
    assert kept[10] == []
    assert kept[11] == kept[12] == [11]
    assert kept[23] == [11, 13, 15, 17, 19, 21, 23]
    assert kept[40] == list(range(17, 40, 2))  # two rises of 12 epochs are left


@dataclass(frozen=True, kw_only=True)
class InTurn(Planted):
    """Eigenvalues in the order in which they are measured."""

    def measure(self, session):
        self.measured.append(session.epoch)
        return {"eigenvalue": self.values[len(self.measured) - 1]}


def test_a_rise_that_comes_sooner_after_a_return_goes_back_further(parts):
    trace = InTurn(values=(1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 1.0, 1.0, 9.0))
    hook = EigenvalueAdapt(how=trace, every=1, window=1, lag=2, after=0)
    result = run_supernet_search("nasbench201", *parts, planned(hook, epochs=6), build=BUILD)
    epochs = [row["epoch"] for row in result.history]
    assert epochs == [1, 2, 3, 4, 5, 4, 3, 4, 5, 6]  # back to 3 after 5, then back to 2 after 4
    assert [row["note"][-5:] for row in result.history if "note" in row] == ["0.003", " 0.03"]


class Interrupted(Exception):
    pass


def test_darts_ada_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(parts, tmp_path):
    always = Planted(values=tuple(2.0**i for i in range(9)))
    plan = planned(EigenvalueAdapt(how=always, **ADA), epochs=5)
    whole = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
    for stop in (2, 3, 4):
        seen = []

        def interrupt(row, seen=seen, stop=stop):
            seen.append(row)
            if len(seen) == stop:
                raise Interrupted

        path = tmp_path / f"{stop}.ckpt"
        with pytest.raises(Interrupted):
            run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path, on_epoch=interrupt)
        resumed = run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path)
        assert resumed.history == whole.history
        assert same(whole.supernet.state_dict(), resumed.supernet.state_dict())


def test_a_relaxation_of_single_paths_has_no_eigenvalue_to_stop_by(parts):
    class Paths(Softmax):
        mixed = False

    with pytest.raises(OptionError, match="but Paths trains single paths; take a relaxation that mixes"):
        session_of(parts, planned(EigenvalueStop(), relaxation=Paths())).__enter__()


def test_numbers_that_do_not_fit_are_refused(parts):
    with pytest.raises(OptionError, match="every, window and lag of at least 1"):
        EigenvalueStop(every=0)
    with pytest.raises(OptionError, match=r"a factor above 1 and a cap above 0, but got 1\.0 and 0\.03"):
        EigenvalueAdapt(factor=1.0)
    with pytest.raises(OptionError, match=r"a weight decay of the weights above 0, as EigenvalueAdapt .* but got 0\.0"):
        session_of(parts, planned(EigenvalueAdapt(), weights=WeightSteps(weight_decay=0.0))).__enter__()


def test_presets_have_the_published_numbers():
    stop, adapt = get_plan("darts_es"), get_plan("darts_ada", order=1)
    assert stop.hooks == (EigenvalueStop(every=2, window=5, ratio=1.3, after=10, lag=4),)
    assert adapt.hooks == (EigenvalueAdapt(every=2, window=5, ratio=1.3, after=10, lag=4, factor=10.0, cap=0.03),)
    assert (type(stop.architect), type(adapt.architect)) == (SecondOrder, FirstOrder)
    assert stop.weights == WeightSteps()
    with pytest.raises(OptionError, match="order 1 or 2, but got 3"):
        get_plan("darts_es", order=3)
