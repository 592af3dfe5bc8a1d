"""Rank statistics: equal to scipy's, their influences to plain double loops, and intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from naswot.errors import InputError
from naswot.statistics import (
    Estimate,
    bootstrap,
    compare,
    kendall,
    kendall_interval,
    needed_for,
    partial_kendall,
    pearson,
    spearman,
    weighted_kendall,
)

VALUES = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 0.5000001, 3.0, 1e9])
PAIRS = st.integers(3, 30).flatmap(
    lambda n: st.tuples(arrays.arrays(float, n, elements=VALUES), arrays.arrays(float, n, elements=VALUES))
)


def same(first, second):
    return (math.isnan(first) and math.isnan(second)) or first == pytest.approx(second, abs=1e-12)


def jackknife_error(function, *columns):
    """Standard error from leaving out one item at a time: another road to the same number."""
    n = len(columns[0])
    left_out = [function(*(np.delete(column, i) for column in columns)) for i in range(n)]
    return math.sqrt((n - 1) / n * np.square(np.array(left_out) - np.mean(left_out)).sum())


def error_of(estimate):
    """Standard error behind an interval on the scale of artanh."""
    half = (math.atanh(estimate.high) - math.atanh(estimate.low)) / 2
    return half * (1 - estimate.value**2) / stats.norm.ppf(0.975)


def ties(seed, n=60):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=n)
    return [np.round(base + rng.normal(size=n), digits) for digits in (0, 1, 1)]


@pytest.mark.filterwarnings("ignore:An input array is constant")
@given(PAIRS)
@settings(max_examples=200, deadline=None)
def test_coefficients_are_those_of_scipy(pair):
    x, y = pair
    assert same(kendall(x, y), stats.kendalltau(x, y).statistic)
    assert same(kendall_interval(x, y).value, stats.kendalltau(x, y).statistic)
    assert same(spearman(x, y), stats.spearmanr(x, y).statistic)
    assert same(weighted_kendall(x, y), stats.weightedtau(x, y).statistic)


def test_pearson_is_that_of_scipy_over_finite_pairs():
    x, y, _ = ties(0)
    expected = stats.pearsonr(x[1:], y[1:]).statistic
    assert pearson(np.concatenate([[-np.inf], x[1:]]), y) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(pearson(np.ones(5), np.arange(5)))


def test_a_case_on_paper():
    # pairs: 5 concordant, 1 discordant
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    # one tie in x: 4 concordant of 5 untied, 1 discordant; tau-b = 3 / sqrt(5 * 6)
    assert kendall([1, 1, 3, 4], [1, 2, 4, 3]) == pytest.approx(3 / math.sqrt(30))


def test_minus_infinity_ranks_last_and_ties_with_itself():
    x = np.array([-np.inf, -np.inf, 1.0, 2.0, 3.0])
    assert kendall(x, [5.0, 4, 3, 2, 1]) == kendall([0, 0, 1, 2, 3], [5, 4, 3, 2, 1])
    assert same(kendall_interval(x, [5.0, 1, 3, 2, 4]).value, kendall([0, 0, 1, 2, 3], [5, 1, 3, 2, 4]))


def test_pairs_with_nan_are_left_out_and_counted():
    x, y, _ = ties(1)
    holes = np.where(np.arange(60) % 7 == 0, np.nan, x)
    known = ~np.isnan(holes)
    assert kendall_interval(holes, y) == kendall_interval(x[known], y[known])
    assert kendall_interval(holes, y).n == known.sum()
    assert compare(holes, x, y).difference.n == known.sum()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pairs_have_no_interval(n):
    estimate = kendall_interval(np.arange(n), np.arange(n))
    assert math.isnan(estimate.low)
    assert estimate.n == n
    assert same(estimate.value, 1.0 if n == 2 else math.nan)


def test_constant_side_has_no_tau():
    assert math.isnan(kendall(np.ones(9), np.arange(9)))
    assert all(
        math.isnan(v) for v in (kendall_interval(np.ones(9), np.arange(9)).value, spearman(np.ones(9), range(9)))
    )


def test_refuses_vectors_of_two_lengths():
    with pytest.raises(InputError, match="one length"):
        kendall([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="one length"):
        compare([1, 2], [1, 2], [1, 2, 3])


@pytest.mark.parametrize("seed", range(3))
def test_standard_errors_agree_with_the_jackknife(seed):
    a, b, y = ties(seed)
    assert error_of(kendall_interval(a, y)) == pytest.approx(jackknife_error(kendall, a, y), rel=0.06)
    partial = partial_kendall(a, y, b)
    by_jackknife = jackknife_error(lambda *columns: partial_kendall(*columns).value, a, y, b)
    assert error_of(partial) == pytest.approx(by_jackknife, rel=0.06)
    both = compare(a, b, y).difference
    by_jackknife = jackknife_error(lambda p, q, r: kendall(p, r) - kendall(q, r), a, b, y)
    assert (both.high - both.low) / 2 / stats.norm.ppf(0.975) == pytest.approx(by_jackknife, rel=0.06)


def draws(n, rho, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [30, 150])
def test_interval_of_tau_has_its_coverage(n, rho):
    true = 2 / math.pi * math.asin(rho)
    found = [kendall_interval(*draws(n, rho, seed)) for seed in range(300)]
    assert 0.915 <= np.mean([e.low <= true <= e.high for e in found]) <= 0.975


def test_interval_of_tau_with_ties_has_its_coverage():
    def tied(n, seed):
        return tuple(np.round(column * 1.5) for column in draws(n, 0.6, seed))

    true = kendall(*tied(200_000, 10_000))
    found = [kendall_interval(*tied(100, seed)) for seed in range(300)]
    assert 0.92 <= np.mean([e.low <= true <= e.high for e in found]) <= 0.975


def test_paired_test_keeps_its_level_and_finds_a_difference():
    def three(seed, worse):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=150)
        shared = rng.normal(size=150)
        return y + shared + rng.normal(size=150), y + shared + worse * rng.normal(size=150), y

    rejected = [compare(*three(seed, 1.0)).p_value < 0.05 for seed in range(300)]
    assert 0.025 <= np.mean(rejected) <= 0.08
    assert np.mean([compare(*three(seed, 3.0)).p_value < 0.05 for seed in range(100)]) > 0.9
    a, _, y = three(0, 1.0)
    assert compare(a, a, y).p_value == 1.0
    assert compare(a, 3 * a + 1, y).difference.value == 0.0


def test_paired_test_is_sharper_than_two_intervals():
    a, y = draws(300, 0.6, 0)
    b = a + 0.3 * np.random.default_rng(1).normal(size=300)
    both = compare(a, b, y).difference
    apart = [kendall_interval(score, y) for score in (a, b)]
    assert both.high - both.low < 0.6 * min(e.high - e.low for e in apart)


def test_partial_tau_takes_out_what_a_third_explains():
    rng = np.random.default_rng(0)
    size = rng.normal(size=2000)
    x, y = size + 0.5 * rng.normal(size=2000), size + 0.5 * rng.normal(size=2000)
    assert kendall(x, y) > 0.5
    assert abs(partial_kendall(x, y, size).value) < 0.2  # not 0: partial tau is no test of conditional independence
    assert partial_kendall(x, y, rng.normal(size=2000)).value == pytest.approx(kendall(x, y), abs=0.01)
    assert math.isnan(partial_kendall(x, y, x).value)


def test_partial_tau_on_paper():
    x, y, z = [1, 2, 3, 4], [1, 2, 4, 3], [2, 1, 3, 4]  # taus 4/6, 4/6 and 2/6
    expected = (4 / 6 - 4 / 6 * 2 / 6) / math.sqrt((1 - 16 / 36) * (1 - 4 / 36))
    assert partial_kendall(x, y, z).value == pytest.approx(expected)


def test_needed_items_give_the_wished_interval():
    for rho in (0.3, 0.8):
        tau = 2 / math.pi * math.asin(rho)
        n = needed_for(0.05, tau=tau)
        widths = [e.high - e.low for e in (kendall_interval(*draws(n, rho, seed)) for seed in range(20))]
        assert np.mean(widths) / 2 == pytest.approx(0.05, rel=0.12)
    with pytest.raises(InputError, match="half width"):
        needed_for(0.0)


def test_bootstrap_is_seeded_and_agrees_with_the_analytic_interval():
    x, y = draws(200, 0.7, 3)
    analytic, resampled = kendall_interval(x, y), bootstrap(kendall, x, y)
    assert resampled == bootstrap(kendall, x, y)
    assert resampled != bootstrap(kendall, x, y, seed=1)
    assert resampled.value == pytest.approx(analytic.value)
    assert (resampled.low, resampled.high) == pytest.approx((analytic.low, analytic.high), abs=0.015)
    assert math.isnan(bootstrap(kendall, [1.0], [1.0]).low)
    assert math.isnan(bootstrap(kendall, np.ones(5), np.arange(5)).low)


def test_estimates_print_with_their_interval():
    assert str(Estimate(0.5, 0.41, 0.5912, 100)) == "0.500 [0.410, 0.591]"
