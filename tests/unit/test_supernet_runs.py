"""Several searches: seeds, variants, what a judge says, and other processes."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace

import pytest
import torch
from reference.policy_toys import position_weighted

from naswot.data import get_data
from naswot.differentiable.plan import AlphaSteps, SearchPlan
from naswot.differentiable.runs import RunKey, run_searches, seed_of
from naswot.differentiable.searching import ImageTasks, run_supernet_search
from naswot.errors import DivergedError, OptionError
from naswot.evaluators import CallableEvaluator
from naswot.space import get_space
from naswot.training.splits import three_way_split
from naswot.workers import worker_pool

BUILD = {"width": 2, "n_cells": 1}
PLAN = replace(SearchPlan(alphas=AlphaSteps(learning_rate=0.1)), batch_size=32).lasting(2)


@pytest.fixture(scope="module")
def images():
    return three_way_split(get_data("digits").subset(torch.arange(128)), valid_fraction=0.5)


@pytest.fixture(scope="module")
def judge():
    return CallableEvaluator(get_space("nasbench201"), position_weighted)


def search(images, plans=(PLAN,), **options):
    return run_searches("nasbench201", ImageTasks(*images), plans, build=BUILD, **options)


def test_a_seed_of_several_is_the_search_of_that_seed_alone(images, judge):
    runs = search(images, seeds=(0, 3), judge=judge)
    for run in runs.runs:
        alone = run_supernet_search("nasbench201", *images, PLAN, seed=run.key.seed, build=BUILD)
        assert (run.history, run.arch) == (alone.history, alone.arch)
        assert run.value == position_weighted(run.genotype)


def test_mean_and_spread_are_of_the_seeds_and_the_best_stands_apart(images, judge):
    runs = search(images, seeds=(0, 1, 2), judge=judge)
    values = [position_weighted(run.genotype) for run in runs.runs]
    assert len(set(values)) > 1
    assert runs.mean == pytest.approx(statistics.fmean(values))
    assert runs.spread == pytest.approx(statistics.stdev(values))
    assert runs.best.value == max(values)


def test_of_several_plans_the_judge_keeps_the_best_of_each_seed(images, judge):
    plans = (PLAN, replace(PLAN, alphas=AlphaSteps(learning_rate=0.3)), replace(PLAN, partial=2))
    runs = search(images, plans, seeds=(0, 1), judge=judge)
    assert [run.key for run in runs.runs] == [RunKey(seed, variant) for seed in (0, 1) for variant in range(3)]
    for run, first in zip(runs.by_seed, (0, 3), strict=True):
        assert run.value == max(other.value for other in runs.runs[first : first + 3])
    assert len(runs.values) == 2


def test_processes_give_the_same_and_tell_their_epochs_to_this_thread(images, judge):
    told, here = [], []

    def note(key, row):
        told.append((key, row["epoch"]))
        here.append(os.getpid())

    alone = search(images, seeds=(0, 1), judge=judge)
    with worker_pool(2) as executor:
        runs = search(images, seeds=(0, 1), judge=judge, executor=executor, on_epoch=note)
    assert [(r.key, r.arch, r.value) for r in runs.runs] == [(r.key, r.arch, r.value) for r in alone.runs]
    assert sorted(told) == [(RunKey(seed, 0), epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert set(here) == {os.getpid()}


def test_what_a_process_raises_comes_back(images):
    bad = replace(PLAN, weights=replace(PLAN.weights, learning_rate=1e18, clip_norm=None))
    with worker_pool(2) as executor, pytest.raises(DivergedError, match="the search diverged"):
        search(images, (bad,), seeds=(0, 1), executor=executor)


def test_a_search_that_diverges_does_not_take_the_others_with_it(images, judge):
    bad = replace(PLAN, weights=replace(PLAN.weights, learning_rate=1e18, clip_norm=None))
    runs = search(images, (bad, PLAN), seeds=(0, 1), judge=judge)
    assert [run.key for run in runs.failed] == [RunKey(0, 0), RunKey(1, 0)]
    assert all("the search diverged" in run.error for run in runs.failed)
    assert [run.key.variant for run in runs.by_seed] == [1, 1]
    assert len(runs.values) == 2
    with pytest.raises(DivergedError, match="the search diverged"):
        search(images, (bad,), seeds=(0, 1))


def test_what_was_judged_is_not_judged_again(images, tmp_path):
    asked = []

    def count(genotype):
        asked.append(genotype)
        return 1.0

    judge = CallableEvaluator(get_space("nasbench201"), count)
    for _ in range(2):
        assert search(images, judge=judge, folder=tmp_path).best.value == 1.0
    assert len(asked) == 1
    other = CallableEvaluator(get_space("nasbench201"), count, about={"other": True})
    search(images, judge=other, folder=tmp_path)
    assert len(asked) == 2


def test_finished_searches_are_not_done_again(images, judge, tmp_path):
    first = search(images, seeds=(0,), judge=judge, folder=tmp_path)
    told = []
    more = search(images, seeds=(0, 1), judge=judge, folder=tmp_path, on_epoch=lambda key, row: told.append(key.seed))
    assert set(told) == {1}
    assert more.runs[0].history == first.runs[0].history


def test_what_is_impossible_is_refused(images):
    with pytest.raises(OptionError, match="searches 2 times and keeps the best by validation: give a judge"):
        search(images, (PLAN, PLAN))
    with pytest.raises(OptionError, match="different seeds"):
        search(images, seeds=(1, 1))


def test_variants_have_random_numbers_of_their_own():
    assert seed_of(RunKey(5, 0)) == 5
    assert len({seed_of(RunKey(5, variant)) for variant in range(4)}) == 4
