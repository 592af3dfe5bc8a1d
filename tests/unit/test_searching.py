"""The search loop: budgets, parallel trials, failures, repeats, results; resume after kill -9; two processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from reference import searches

from naswot.errors import OptionError
from naswot.evaluators import CallableEvaluator
from naswot.searcher import get_searcher
from naswot.searching import Budget, run_search
from naswot.space import get_space
from naswot.store import ResultStore
from naswot.types import Evaluation
from naswot.workers import worker_pool

SPACE = get_space("nasbench201")


def told(found):
    return [(r.trial, r.values, r.error, dict(r.evaluation.scores)) for r in found.records]


class Timed:
    """Takes ten seconds an epoch without taking any."""

    space, seed, epochs, names, stages = SPACE, 0, 12, ("value",), ("train",)
    by_epochs, inherits = ("value", "train"), False

    def __init__(self):
        self.done = []

    def evaluate(self, trial):
        self.done.append((trial.genotype, trial.epochs or self.epochs))
        epochs = trial.epochs or self.epochs
        return Evaluation(trial.genotype, "", {"value": float(sum(trial.genotype))}, {"train": 10.0 * epochs}, 0)

    def describe(self):
        return {}


def random(seed=0, **options):
    return get_searcher("random", SPACE, seed=seed, **options)


def sums(**options):
    return CallableEvaluator(SPACE, lambda genotype: float(sum(genotype)), **options)


# -------------------------------------------------------------------------------------------------------------- budgets


def test_budgets_of_evaluations_epochs_and_seconds():
    assert len(run_search(random(), Timed(), budget=Budget(evaluations=7)).records) == 7
    by_epochs = run_search(random(), Timed(), budget=Budget(epochs=30))
    assert [r.epochs for r in by_epochs.records] == [12, 12, 12]
    by_seconds = run_search(random(), Timed(), budget=Budget(seconds=300.0))
    assert [r.spent for r in by_seconds.records] == [120.0, 240.0, 360.0]
    strict = run_search(random(), Timed(), budget=Budget(seconds=300.0, strict=True))
    assert [r.spent for r in strict.records] == [120.0, 240.0]
    assert {r.stopped for r in (by_epochs, by_seconds, strict)} == {"budget"}


@pytest.mark.parametrize("limits", [{}, {"evaluations": 0}, {"seconds": -1.0}, {"epochs": 0}])
def test_no_budget_or_an_empty_one_is_refused(limits):
    with pytest.raises(OptionError, match="positive budget"):
        Budget(**limits)


def test_open_trials_count_towards_a_budget_of_epochs():
    with ThreadPoolExecutor(4) as pool:
        found = run_search(random(), Timed(), budget=Budget(epochs=30), executor=pool, parallel=4)
    assert [r.epochs for r in found.records] == [12, 12, 12]


def test_a_strategy_that_never_ends_needs_a_budget():
    with pytest.raises(OptionError, match="random never ends by itself"):
        run_search(random(), sums())


def test_scoring_counts_as_spent():
    from naswot.assisted import TableScorer

    scorer = TableScorer({g: float(sum(g)) for g in SPACE.genotypes()}, seconds=3.0)
    found = run_search(get_searcher("area", SPACE, scorer=scorer), Timed(), budget=Budget(seconds=600.0, strict=True))
    assert [r.spent for r in found.records] == [180.0, 300.0, 420.0, 540.0]  # 20 scores first
    assert found.n_scored == found.records[0].n_scored == 20


@pytest.mark.parametrize("parallel", [0, 2])
def test_repeats_are_charged_but_not_evaluated_again(parallel):
    class Twice(type(random())):
        def propose(self):
            return super().propose()._replace(genotype=(1, 1, 1, 1, 1, 1))

    evaluator = Timed()
    with ThreadPoolExecutor(2) as pool:
        at_once = {"executor": pool, "parallel": parallel} if parallel else {}
        found = run_search(Twice(SPACE), evaluator, budget=Budget(evaluations=3), **at_once)
    assert len(evaluator.done) == 1
    assert found.records[-1].spent == 360.0


def test_a_search_by_time_alone_ends_when_nothing_new_comes(monkeypatch):
    monkeypatch.setattr("naswot.searching._IDLE_LIMIT", 5)

    class Still(type(random())):
        def propose(self):
            return super().propose()._replace(genotype=(1, 1, 1, 1, 1, 1))

    free = CallableEvaluator(SPACE, lambda genotype: 1.0)
    free.evaluate = lambda trial: Evaluation(trial.genotype, "", {"value": 1.0}, {}, 0)
    found = run_search(Still(SPACE), free, budget=Budget(seconds=1.0))
    assert (len(found.records), found.stopped) == (5, "no progress")


# ------------------------------------------------------------------------------------------------ order and parallelism


def test_the_result_depends_on_the_open_trials_not_on_who_ends_first():
    delays = threading.Event()

    def uneven(genotype):
        delays.wait(0.02 * (sum(genotype) % 3))
        return float(sum(genotype))

    def play(parallel, workers):
        searcher = get_searcher("regularized_evolution", SPACE, population=4, sample=2, seed=5)
        with ThreadPoolExecutor(workers) as pool:
            evaluator = CallableEvaluator(SPACE, uneven)
            found = run_search(searcher, evaluator, budget=Budget(evaluations=24), executor=pool, parallel=parallel)
        return [r.trial for r in found.records]

    assert play(3, 3) == play(3, 1)
    assert [trial.number for trial in play(3, 3)] == list(range(24))
    assert play(3, 3) != play(1, 1)
    serial = run_search(
        get_searcher("regularized_evolution", SPACE, population=4, sample=2, seed=5),
        sums(),
        budget=Budget(evaluations=24),
    )
    assert play(1, 1) == [r.trial for r in serial.records]


def test_the_cascade_keeps_workers_busy_and_waits_between_its_stages():
    from naswot.assisted import TableScorer

    scorer = TableScorer({g: float(sum(g)) for g in SPACE.genotypes()})
    cascade = get_searcher("cascade", SPACE, scorer=scorer, screened=30, kept=5, brief=2, full=9)
    with ThreadPoolExecutor(2) as pool:
        found = run_search(cascade, Timed(), executor=pool, parallel=4)
    assert [r.epochs for r in found.records] == [2] * 5 + [9]
    assert found.stopped == "exhausted"
    assert found.best is found.records[-1]  # though the brief ones have the same value


# ------------------------------------------------------------------------------------------------------------- failures


def test_failures_are_told_recorded_and_the_search_goes_on(tmp_path):
    def moody(genotype):
        if sum(genotype) % 2:
            raise RuntimeError("out of luck")
        return math.nan if sum(genotype) % 4 else float(sum(genotype))

    evaluator = CallableEvaluator(SPACE, moody)

    def play():
        with ResultStore(tmp_path / "r.sqlite", options={}) as store:
            searcher = get_searcher("regularized_evolution", SPACE, population=4, sample=2)
            return run_search(searcher, evaluator, budget=Budget(evaluations=20), store=store)

    found = play()
    errors = {r.error for r in found.records}
    assert errors == {None, "RuntimeError: out of luck", "it is not a number (NaN)"}
    assert found.best.values[0] == max(r.values[0] for r in found.records if r.values)
    evaluator._function = lambda genotype: pytest.fail("what has failed is not tried again")
    again = play()
    assert [(r.trial, r.values, r.error) for r in again.records] == [
        (r.trial, r.values, r.error) for r in found.records
    ]


def test_a_search_in_which_all_fails_has_no_best():
    found = run_search(random(), CallableEvaluator(SPACE, lambda g: 1 / 0), budget=Budget(evaluations=4))
    assert found.best is None
    assert found.front == []
    assert found.best_so_far() == [-math.inf] * 4


def test_fronts_and_curves_do_not_mix_lengths_of_training():
    from naswot.assisted import TableScorer

    class Learning(Timed):
        names = ("a", "b")
        by_epochs = ("a", "b", "train")

        def evaluate(self, trial):
            epochs = trial.epochs or self.epochs
            scores = {"a": float(sum(trial.genotype) + epochs), "b": float(-trial.genotype[0])}
            return Evaluation(trial.genotype, "", scores, {"train": 1.0}, 0)

    scorer = TableScorer({g: float(sum(g)) for g in SPACE.genotypes()})
    options = {"screened": 40, "kept": 6, "finalists": 2, "brief": 2, "full": 12}
    cascade = get_searcher("cascade", SPACE, scorer=scorer, n_objectives=2, **options)
    found = run_search(cascade, Learning(), objectives=["a", "b"])
    assert {r.epochs for r in found.front} == {12}
    assert found.best in found.front
    curve = found.best_so_far()
    assert curve[:6] == sorted(curve[:6])
    assert curve[6] == found.records[6].values[0]


def test_budgets_that_would_never_end_are_refused_or_ended(monkeypatch):
    with pytest.raises(OptionError, match="nothing is trained here"):
        run_search(random(), sums(), budget=Budget(epochs=5))
    monkeypatch.setattr("naswot.searching._IDLE_LIMIT", 50)
    free = CallableEvaluator(SPACE, lambda genotype: 1.0)
    free.evaluate = lambda trial: Evaluation(trial.genotype, "", {"value": 1.0}, {}, 0)
    found = run_search(random(), free, budget=Budget(seconds=1.0))
    assert (len(found.records), found.stopped) == (50, "no progress")
    assert len(run_search(random(), free, budget=Budget(evaluations=80)).records) == 80


def test_objectives_must_fit():
    with pytest.raises(OptionError, match="needs 'speed'; the evaluator gives value"):
        run_search(random(), sums(), objectives=["value - speed"], budget=Budget(evaluations=1))
    with pytest.raises(OptionError, match="made for 1 objectives, but got 2"):
        run_search(random(), sums(), objectives=["value", "-value"], budget=Budget(evaluations=1))
    with pytest.raises(OptionError, match="parallel"):
        run_search(random(), sums(), budget=Budget(evaluations=1), parallel=0)


def test_the_front_is_what_nobody_dominates():
    evaluator = CallableEvaluator(
        SPACE, lambda g: {"a": float(g[0] + g[1]), "b": float(-g[0] - g[2])}, names=("a", "b")
    )
    found = run_search(random(n_objectives=2), evaluator, objectives=["a", "b"], budget=Budget(evaluations=300))
    values = {r.values for r in found.records}
    front = {v for v in values if not any(o[0] >= v[0] and o[1] >= v[1] and o != v for o in values)}
    assert {r.values for r in found.front} == front
    assert len({r.trial.genotype for r in found.front}) == len(found.front)


# --------------------------------------------------------------------------------------------------------------- resume


def rows(folder):
    with ResultStore(folder / "results.sqlite", read_only=True) as store:
        return [(e.arch, e.seed, e.repeat, dict(e.scores), dict(e.reasons), sorted(e.seconds)) for e in store]


@pytest.mark.parametrize("kind", searches.PLACES)
def test_killed_in_the_middle_of_an_evaluation_it_goes_on_as_if_nothing_had_been(kind, tmp_path):
    place, n = searches.PLACES[kind]
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    tests = Path(__file__).resolve().parents[1]
    words = [sys.executable, tests / "reference" / "searches.py", kind, tmp_path / "killed", place, str(n)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(tests)}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = rows(tmp_path / "killed")
    assert 0 < len(before) < 7
    resumed = searches.search(kind, tmp_path / "killed")
    whole = searches.search(kind, tmp_path / "whole")
    assert told(resumed) == told(whole)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) > len(before)
    assert not list((tmp_path / "killed").glob("unfinished/*"))


def test_what_is_finished_is_kept_even_while_an_earlier_trial_runs(tmp_path):
    first, release = [], threading.Event()

    def slow_at_first(genotype):
        if not first:
            first.append(genotype)
            release.wait(20)
            raise KeyboardInterrupt
        return float(sum(genotype))

    def kept():
        with ResultStore(tmp_path / "r.sqlite", read_only=True) as store:
            return len(store)

    def watch():
        for _ in range(400):
            if kept() == 2:
                break
            release.wait(0.05)
        release.set()

    evaluator = CallableEvaluator(SPACE, slow_at_first)
    with ThreadPoolExecutor(3) as pool, ResultStore(tmp_path / "r.sqlite", options={}) as store:
        watcher = threading.Thread(target=watch)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            run_search(random(), evaluator, budget=Budget(evaluations=3), store=store, executor=pool, parallel=3)
        watcher.join()
    assert kept() == 2


def test_a_dead_pool_is_explained():
    from concurrent.futures.process import BrokenProcessPool

    from naswot.errors import WorkerError

    class Dead:
        def submit(self, *_):
            raise BrokenProcessPool("gone")

    with pytest.raises(WorkerError, match="a worker process died"):
        run_search(random(), sums(), budget=Budget(evaluations=1), executor=Dead())


def test_lengths_and_scores_of_one_architecture_keep_their_own_seconds(tmp_path):
    from naswot.assisted import ProxyScorer
    from naswot.evaluate import Evaluator
    from naswot.evaluators import CombinedEvaluator

    proxies = Evaluator(SPACE, searches.images(), ("naswot",), batch_size=4, build=searches.BUILD)
    more = Evaluator(SPACE, searches.images(), ("params",), batch_size=4, build=searches.BUILD)
    both = CombinedEvaluator(more, Timed())

    def play():
        with ResultStore(tmp_path / "r.sqlite", options={}) as store:
            scorer = ProxyScorer(proxies, store=store)
            cascade = get_searcher("cascade", SPACE, scorer=scorer, screened=6, kept=3, brief=2, full=9)
            found = run_search(cascade, both, objectives=["value - 1e-9 * params"], store=store)
        return [r.spent for r in found.records]

    first = play()
    assert play() == first
    assert first[-1] > 10 * (2 + 2 + 2 + 9)


def test_seconds_of_a_resumed_search_are_those_of_the_first(tmp_path):
    first = searches.search("callable", tmp_path)
    again = searches.search("callable", tmp_path)
    assert [r.spent for r in again.records] == [r.spent for r in first.records]
    longer = searches.search("callable", tmp_path, evaluations=12)
    assert told(longer)[:8] == told(first)


@pytest.mark.slow
def test_two_processes_on_one_store_lose_nothing(tmp_path):
    tests = Path(__file__).resolve().parents[1]
    words = [sys.executable, tests / "reference" / "searches.py", "proxy", tmp_path, "reference.searches:half_way", "1"]
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    both = [subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, error = process.communicate()
        assert process.returncode == 0, error
    (tmp_path / "alone").mkdir()
    searches.search("proxy", tmp_path / "alone")
    assert rows(tmp_path) == rows(tmp_path / "alone")


@pytest.mark.slow
def test_trainings_in_workers_give_the_same_bits(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with worker_pool(2) as pool:
        there = searches.search("training", tmp_path / "there", executor=pool, parallel=2, evaluations=4)
    here = searches.search("training", tmp_path / "here", parallel=2, evaluations=4)
    assert told(here) == told(there)
    assert rows(tmp_path / "here") == rows(tmp_path / "there")


@pytest.mark.slow
def test_large_scale_evolution_climbs_from_the_linear_model_on_inherited_weights(tmp_path):
    from naswot.training.evaluator import TrainingEvaluator
    from naswot.training.recipe import get_recipe
    from naswot.training.splits import three_way_split

    space = get_space("evolved_graph")
    train, valid = three_way_split(searches.images(), valid_fraction=0.25)
    recipe = get_recipe("quick", epochs=3, batch_size=32)
    evaluator = TrainingEvaluator(space, train, valid, recipe, folder=tmp_path, inherits=True)

    def play():
        with ResultStore(tmp_path / "r.sqlite", options=evaluator.describe()) as store:
            evolution = get_searcher("large_scale_evolution", space, population=4, seed=1)
            return run_search(evolution, evaluator, budget=Budget(evaluations=40), store=store)

    found = play()
    first = [r.values[0] for r in found.records[:4]]
    assert {r.trial.genotype for r in found.records[:4]} == {space.start()}
    assert found.best.values[0] > max(first) + 20  # percent
    assert sum(r.trial.parent is not None for r in found.records) > 20
    assert told(play()) == told(found)  # all out of the store, though a result depends on the parent's
