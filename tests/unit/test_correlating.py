"""Scores against trained results: which sample, which orientation, which comparison."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from naswot import correlating
from naswot.benchmark import Benchmark, Column, Table
from naswot.correlating import correlate, datasets_with, orientation, sample_of, tabulate
from naswot.costs import costs_in_forwards
from naswot.data import get_data
from naswot.errors import InputError, OptionError, UnknownNameError
from naswot.evaluate import Evaluator
from naswot.run import sample_distinct
from naswot.space import get_space
from naswot.statistics import holm, kendall, kendall_interval, partial_kendall
from naswot.store import ResultStore

SPACE = get_space("nasbench201")
BUILD = {"width": 2, "n_cells": 1, "n_classes": 10, "in_channels": 3}


def parameters(genotype):
    return float(sum(p.numel() for p in SPACE.build(genotype, **BUILD).parameters()))


@pytest.fixture(scope="module")
def benchmark():
    cells = sample_distinct(SPACE, 24, seed=3)
    size = np.array([parameters(cell) for cell in cells])
    noise = np.random.default_rng(0).normal(size=(2, 24))
    columns = {
        Column("good", "test_accuracy", 5, 0): size,
        Column("good", "test_accuracy", 5, 1): size + 200 * noise[0],
        Column("bad", "test_accuracy"): np.where(np.arange(24) < 4, np.nan, -size),
        Column("good", "test_error"): -size,
    }
    return Benchmark("mine", SPACE, Table(cells, columns))


def evaluator(*proxies, **options):
    return Evaluator(SPACE, get_data("digits", size=8), proxies or ("params",), batch_size=8, build=BUILD, **options)


def test_tau_of_a_sample_with_its_own_results(benchmark):
    found = correlate(benchmark, evaluator("params", "naswot"), n=20)
    assert len(found.scores.genotypes) == 20
    assert list(found.truth) == ["good", "bad"]
    taus = {(row.dataset, row.proxy): row.tau for row in found.rows}
    size = [parameters(cell) for cell in found.scores.genotypes]
    assert np.array_equal(found.scores.values["params"], size)
    mean = [benchmark.query(cell, dataset="good") for cell in found.scores.genotypes]
    assert taus["good", "params"] == kendall_interval(size, mean)
    assert taus["bad", "params"].value == pytest.approx(-1)
    known = sum(not math.isnan(benchmark.query(cell, dataset="bad")) for cell in found.scores.genotypes)
    assert taus["bad", "params"].n == known < 20
    both = [[benchmark.query(c, dataset="good", seed=s) for c in found.scores.genotypes] for s in (0, 1)]
    assert found.ceiling == {"good": kendall(*both)}


def test_errors_are_oriented(benchmark):
    assert orientation("test_error") == orientation("raspi4_latency") == -1
    assert orientation("test_accuracy") == 1
    found = correlate(benchmark, evaluator(), metric="test_error", n=None)
    assert [row.tau.value for row in found.rows] == pytest.approx([1.0])
    assert list(found.truth) == ["good"]


def test_scores_of_which_less_is_better_are_oriented(benchmark):
    found = correlate(benchmark, evaluator("ntk_condition"), n=3, datasets=["good"])
    raw = [evaluator("ntk_condition")(cell).scores["ntk_condition"] for cell in found.scores.genotypes]
    assert np.array_equal(found.scores.values["ntk_condition"], -np.array(raw))


def test_the_sample_grows_at_its_end_and_follows_the_seed(benchmark):
    assert sample_of(benchmark, 5) == sample_of(benchmark, 12)[:5]
    assert sample_of(benchmark, 12) != sample_of(benchmark, 12, seed=1)
    assert sorted(sample_of(benchmark, None)) == sorted(benchmark.genotypes())
    with pytest.raises(OptionError, match="at least 1"):
        sample_of(benchmark, 0)


def test_each_row_is_equally_likely_in_a_sample(benchmark):
    counts = dict.fromkeys(benchmark.genotypes(), 0)
    for seed in range(400):
        for genotype in sample_of(benchmark, 6, seed=seed):
            counts[genotype] += 1
    assert min(counts.values()) > 60
    assert max(counts.values()) < 145  # 100 are expected, standard deviation 8.7


def test_goes_on_from_a_store(benchmark, tmp_path):
    scored = []
    with ResultStore(tmp_path / "r.sqlite", options=evaluator().describe()) as store:
        correlate(benchmark, evaluator(), n=10, store=store)
        assert len(store) == 10
        again = correlate(benchmark, evaluator(), n=15, store=store, on_result=scored.append)
    assert len(scored) == 15
    fresh = correlate(benchmark, evaluator(), n=15)
    assert again.rows == fresh.rows


def test_refused_before_anything_is_scored(benchmark, monkeypatch):
    monkeypatch.setattr(correlating, "scores_of", lambda *a, **k: pytest.fail("scored"))
    with pytest.raises(UnknownNameError, match="good"):
        correlate(benchmark, evaluator(), datasets=["goodd"])
    with pytest.raises(UnknownNameError, match="test_accuracy"):
        correlate(benchmark, evaluator(), metric="accuracy")
    with pytest.raises(UnknownNameError, match="test_accuracy"):
        datasets_with(benchmark, "accuracy")
    other = Evaluator(get_space("nasbench_macro"), get_data("digits"), ("params",))
    with pytest.raises(OptionError, match="nasbench_macro"):
        correlate(benchmark, other)


def test_networks_that_fail_are_left_out_and_told(benchmark, monkeypatch):
    build = type(SPACE).build
    victim = sample_of(benchmark, 8)[2]

    @functools.wraps(build)  # its signature is read too
    def broken(self, genotype, **options):
        model = build(self, genotype, **options)
        if genotype == victim:
            model.forward = lambda x: torch.zeros(3)[7]
        return model

    scored = evaluator("naswot", "params")
    monkeypatch.setattr(type(SPACE), "build", broken)
    found = correlate(benchmark, scored, n=8, datasets=["good"])
    assert list(found.scores.errors) == [SPACE.format(victim)]
    assert all(row.tau.n == 7 for row in found.rows)


def test_measures_of_a_worked_case():
    truth = np.arange(100.0)
    score = truth.copy()
    score[90:] = score[90:][::-1]  # right outside the best tenth, reversed within
    (row,) = tabulate("d", {"mine": score}, truth)
    assert row.tau.value == pytest.approx(1 - 2 * 45 / 4950)
    assert row.top[0.1] == pytest.approx(-1)
    assert row.top[0.5] == pytest.approx(1 - 2 * 45 / 1225)
    assert (row.precision, row.best_rank, row.regret) == (1.0, 1, 9.0)
    assert row.given == {}
    assert row.over is None


def test_singular_networks_rank_last_and_are_counted():
    truth = np.arange(20.0)
    score = truth.copy()
    score[[0, 19]] = -np.inf
    (row,) = tabulate("d", {"mine": score}, truth)
    assert row.undefined == 2
    assert row.tau.n == 20
    assert row.tau.value == pytest.approx(kendall(np.r_[0, truth[1:-1], 0], truth))


def test_few_architectures_have_no_tau_of_the_best_tenth():
    truth = np.random.default_rng(0).normal(size=40)
    (row,) = tabulate("d", {"mine": truth}, truth)
    assert math.isnan(row.top[0.1])
    assert row.top[0.25] == pytest.approx(1)
    with pytest.raises(InputError, match="3 are needed"):
        tabulate("d", {"mine": truth[:3]}, np.array([1.0, np.nan, 2.0]))


def test_size_is_the_measure_of_a_proxy():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=300)
    scores = {
        "params": truth + 2.0 * rng.normal(size=300),
        "flops": truth + 1.0 * rng.normal(size=300),
        "better": truth + 0.3 * rng.normal(size=300),
        "noise": rng.normal(size=300),
    }
    rows = {row.proxy: row for row in tabulate("d", scores, truth)}
    assert list(rows) == ["better", "flops", "params", "noise"]
    assert rows["flops"].over is rows["params"].over is None
    for name in ("better", "noise"):  # against flops, the stronger of the two
        expected = kendall(scores[name], truth) - kendall(scores["flops"], truth)
        assert rows[name].over.difference.value == pytest.approx(expected)
        assert rows[name].p_value < 1e-6
    assert rows["better"].over.difference.low > 0 > rows["noise"].over.difference.high
    assert rows["params"].given.keys() == {"flops"}
    assert rows["better"].given["params"] == partial_kendall(scores["better"], truth, scores["params"])


def test_holm_by_hand():
    first, second, third, unknown = holm([0.01, 0.04, 0.03, math.nan])
    assert (first, second, third) == pytest.approx((0.03, 0.06, 0.06))
    assert math.isnan(unknown)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_no_proxy_seems_better_than_size_by_chance():
    """With Holm's correction some proxy of six equally good ones is called different in about 5 % of the samples."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(60):
        truth = rng.normal(size=60)
        scores = {name: truth + rng.normal(size=60) for name in ("params", "a", "b", "c", "d", "e", "f")}
        wrong += any(row.p_value is not None and row.p_value < 0.05 for row in tabulate("d", scores, truth))
    assert wrong / 60 < 0.15


def test_costs_are_told_in_forward_passes(benchmark):
    scored = evaluator("params", "naswot", "snip", "jacov")
    costs = costs_in_forwards(scored, sample_of(benchmark, 1))
    assert costs.keys() == {"params", "naswot", "snip", "jacov", "all"}
    assert costs["params"] < costs["naswot"] < costs["snip"] + costs["jacov"]
    assert costs["all"] > 0.6 * max(costs["snip"], costs["jacov"])
    assert costs["all"] < costs["naswot"] + costs["snip"] + costs["jacov"] + costs["params"]  # passes are shared
