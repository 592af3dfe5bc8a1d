r"""How far a score ranks as the truth does: Kendall's tau and its kin, with intervals and paired tests.

Everything about tau rests on one thing, what each item contributes to it. With s the sign function let

.. math:: t_i = \frac{1}{n-1} \sum_j s(x_i - x_j) \, s(y_i - y_j), \quad
          u_i = \frac{1}{n-1} \sum_j s(x_i - x_j)^2, \quad v_i = \frac{1}{n-1} \sum_j s(y_i - y_j)^2

and T, U, V their means over the n items. Then tau-b is :math:`T / \sqrt{UV}`, a smooth function of U-statistics, and
the influence of item i on it is

.. math:: \psi_i = 2 \left( \frac{t_i - T}{\sqrt{UV}} - \frac{\tau}{2}
          \left( \frac{u_i - U}{U} + \frac{v_i - V}{V} \right) \right)

so that its variance is that of the :math:`\psi_i` over n (Hoeffding, Annals of Mathematical Statistics 19, 1948; for
tau without ties the estimate of Hollander and Wolfe, Nonparametric Statistical Methods, section 8.3, up to terms of
order 1/n^2). Differences between two scores and partial taus have the corresponding combination of influences.

What is not a number: a pair with NaN on either side is left out and counted. Minus infinity is a value: it ranks below
all finite ones and ties with itself. Pearson's coefficient takes finite pairs only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from naswot.errors import InputError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], float]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval.

    Args:
        value: the statistic; NaN where it is not defined, such as tau where one side is constant.
        low: lower end of the interval.
        high: upper end of the interval.
        n: pairs it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        ends = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{ends}"


@dataclass(frozen=True)
class Comparison:
    """Two scores against one truth.

    Args:
        difference: tau of the first minus tau of the second, with its interval.
        p_value: two-sided, of no difference.
    """

    difference: Estimate
    p_value: float


def paired(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Both as (n,) float64, without the pairs in which either is NaN.

    Raises:
        InputError: if they are no vectors of one length.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(f"expected two vectors of one length, but got shapes {first.shape} and {second.shape}")
    known = ~(np.isnan(first) | np.isnan(second))
    return first[known], second[known]


# ---------------------------------------------------------------------------------------------------------- Kendall


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b in n log n; NaN if one side is constant."""
    first, second = paired(x, y)
    if len(first) < 3:  # scipy's p-value, which nobody asked for, divides by n - 2
        return _influences(first, second)[0]
    return float(stats.kendalltau(_ranks(first), _ranks(second), method="asymptotic").statistic)


def kendall_interval(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Tau-b with its analytic interval, symmetric on the scale of artanh; n log^2 n.

    The interval is not defined for fewer than 3 pairs, or for a perfect order, of which the influences all vanish.
    """
    first, second = paired(x, y)
    if len(first) < 3:
        return Estimate(kendall(first, second), math.nan, math.nan, len(first))
    value, influences = _influences(first, second)
    return estimate_around(value, _standard_error(influences), len(first), level)


def compare(first: ArrayLike, second: ArrayLike, truth: ArrayLike, *, level: float = 0.95) -> Comparison:
    """Whether the first score has a higher tau with the truth than the second, on the same items.

    Items with NaN in any of the three are left out. The p-value is 1 where both order the items alike.
    """
    a, b, y = _complete(first, second, truth)
    tau_a, of_a = _influences(a, y)
    tau_b, of_b = _influences(b, y)
    error = _standard_error(of_a - of_b)
    difference = tau_a - tau_b
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    p_value = 2 * float(stats.norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)
    return Comparison(Estimate(difference, difference - half, difference + half, len(y)), p_value)


def partial_kendall(x: ArrayLike, y: ArrayLike, given: ArrayLike, *, level: float = 0.95) -> Estimate:
    r"""Kendall's partial tau of x and y given z, with its interval.

    .. math:: \tau_{xy \cdot z} = \frac{\tau_{xy} - \tau_{xz} \tau_{yz}}{\sqrt{(1 - \tau_{xz}^2)(1 - \tau_{yz}^2)}}

    NaN if x or y is ordered exactly as z. M. G. Kendall, Biometrika 32, 1942.
    """
    a, b, z = _complete(x, y, given)
    (xy, of_xy), (xz, of_xz), (yz, of_yz) = _influences(a, b), _influences(a, z), _influences(b, z)
    scale = math.sqrt(max(0.0, (1 - xz**2) * (1 - yz**2)))
    if not scale > 0:
        return Estimate(math.nan, math.nan, math.nan, len(a))
    value = (xy - xz * yz) / scale
    by_xz = (value * xz / (1 - xz**2)) - yz / scale
    by_yz = (value * yz / (1 - yz**2)) - xz / scale
    return estimate_around(value, _standard_error(of_xy / scale + by_xz * of_xz + by_yz * of_yz), len(a), level)


def needed_for(half_width: float, *, tau: float = 0.5, level: float = 0.95) -> int:
    r"""How many items give an interval of tau that wide to either side, without ties and near normality.

    .. math:: n = 4 + 0.437 \left( z (1 - \tau^2) / h \right)^2

    from the variance 0.437 / (n - 4) of artanh tau (Fieller, Hartley and Pearson, Biometrika 44, 1957).
    """
    if not 0 < half_width < 1 or not -1 < tau < 1:
        raise InputError(f"expected a half width within (0, 1) and a tau within (-1, 1), but got {half_width}, {tau}")
    z = float(stats.norm.ppf((1 + level) / 2))
    return math.ceil(4 + 0.437 * (z * (1 - tau**2) / half_width) ** 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the k-th smallest of m times m - k + 1, never below those before it.

    NaN stays and is not counted. S. Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = np.array(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[np.argsort(adjusted[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * adjusted[order]))
    return [float(p) for p in adjusted]


def _influences(x: Floats, y: Floats) -> tuple[float, Floats]:
    """Tau-b and the influence of each item, (n,); NaN if one side is constant."""
    n = len(x)
    t, u, v = (part / max(n - 1, 1) for part in _contributions(x, y))
    scale = math.sqrt(u.mean() * v.mean()) if n else 0.0
    if not scale > 0:
        return math.nan, np.full(n, np.nan)
    tau = float(t.mean()) / scale
    shares = (u - u.mean()) / u.mean() + (v - v.mean()) / v.mean()
    return tau, 2 * ((t - t.mean()) / scale - tau / 2 * shares)


def _contributions(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """For each item, over all others: sum of products of signs, items of another x, items of another y; (n,) each."""
    a, b = _ranks(x), _ranks(y)
    n = len(a)
    ties_x, ties_y = np.bincount(a, minlength=1)[a], np.bincount(b, minlength=1)[b]
    ties_xy = _group_sizes(a * (n + 1) + b)
    less_x, less_y = _less(a), _less(b)
    both = _dominated(a, b)
    # items with the same y (or x) and a smaller x (or y), by position within the group
    same_y = _less_within(b, a)
    same_x = _less_within(a, b)
    above_both = n - (less_x + ties_x) - (less_y + ties_y) + both + same_y + same_x + ties_xy
    below_above = less_x - both - same_y
    above_below = less_y - both - same_x
    signs = both + above_both - below_above - above_below
    return signs.astype(np.float64), (n - ties_x).astype(np.float64), (n - ties_y).astype(np.float64)


def _dominated(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each item the number of items smaller in both, (n,); by merging, all blocks of a length at once."""
    n = len(a)
    order = np.lexsort((-b, a))  # of equal a the larger b first: what stands before and is smaller in b is so in a
    values = b[order]
    place = np.arange(n)
    found = np.zeros(n, dtype=np.int64)
    length = 1
    while length < n:
        pair, right = place // (2 * length), (place // length) % 2 == 1
        keys = pair * (n + 1) + values
        left_keys = np.sort(keys[~right])
        found[right] += np.searchsorted(left_keys, keys[right]) - pair[right] * length
        length *= 2
    counts = np.empty(n, dtype=np.int64)
    counts[order] = found
    return counts


def _ranks(values: Floats) -> NDArray[np.int64]:
    """Dense ranks from 0, (n,): equal values share one."""
    return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.int64).reshape(-1)


def _less(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each item the number of smaller ones."""
    counts = np.bincount(ranks, minlength=1)
    return np.asarray((np.cumsum(counts) - counts)[ranks], dtype=np.int64)


def _less_within(groups: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each item the number of smaller ones within its group."""
    joint = _ranks((groups * (len(groups) + 1) + ranks).astype(np.float64))
    return _less(joint) - _less(groups)


def _group_sizes(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    _, position, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[position.reshape(-1)], dtype=np.int64)


def _complete(*columns: ArrayLike) -> tuple[Floats, ...]:
    """Vectors of one length without the items at which any is NaN."""
    vectors = [np.asarray(column, dtype=np.float64) for column in columns]
    if len({vector.shape for vector in vectors}) != 1 or vectors[0].ndim != 1:
        raise InputError(f"expected vectors of one length, but got shapes {[vector.shape for vector in vectors]}")
    known = ~np.isnan(np.stack(vectors)).any(axis=0)
    return tuple(vector[known] for vector in vectors)


def _standard_error(influences: Floats) -> float:
    n = len(influences)
    return float(np.sqrt(np.square(influences).sum() / max(n - 1, 1) / max(n, 1)))


def estimate_around(value: float, error: float, n: int, level: float) -> Estimate:
    """A coefficient within (-1, 1) of that standard error, with its interval symmetric on the scale of artanh."""
    if math.isnan(value) or math.isnan(error) or error == 0 or abs(value) >= 1:
        return Estimate(value, math.nan, math.nan, n)
    half = float(stats.norm.ppf((1 + level) / 2)) * error / (1 - value**2)
    centre = math.atanh(value)
    return Estimate(value, math.tanh(centre - half), math.tanh(centre + half), n)


# ------------------------------------------------------------------------------------------------------ other measures


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho, mean ranks for ties; NaN if one side is constant."""
    first, second = paired(x, y)
    if len(first) < 2 or np.ptp(_ranks(first)) == 0 or np.ptp(_ranks(second)) == 0:
        return math.nan
    return float(stats.spearmanr(_ranks(first), _ranks(second)).statistic)


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's coefficient over the pairs in which both are finite; NaN if one side is constant."""
    first, second = paired(x, y)
    finite = np.isfinite(first) & np.isfinite(second)
    first, second = first[finite], second[finite]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(stats.pearsonr(first, second).statistic)


def weighted_kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Weighted tau with additive hyperbolic weights, by which the best items count most (Vigna, WWW 2015)."""
    first, second = paired(x, y)
    if len(first) < 2:
        return math.nan
    return float(stats.weightedtau(_ranks(first), _ranks(second)).statistic)


def bootstrap(
    statistic: Statistic, x: ArrayLike, y: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Any statistic of pairs with its percentile bootstrap interval over the items.

    Resamples on which it is not defined are left out.

    Args:
        statistic: of two (n,) vectors, such as :func:`kendall`.
        x: scores, (n,).
        y: truth, (n,).
        resamples: draws of n items with replacement.
        level: share of the resamples within the interval.
        seed: of the draws.
    """
    first, second = paired(x, y)
    n = len(first)
    if n < 2:
        return Estimate(math.nan, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    drawn: Sequence[float] = [
        statistic(first[rows], second[rows]) for rows in (rng.integers(n, size=n) for _ in range(resamples))
    ]
    defined = np.array([value for value in drawn if not math.isnan(value)])
    if len(defined) == 0:
        return Estimate(statistic(first, second), math.nan, math.nan, n)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(statistic(first, second), float(low), float(high), n)
