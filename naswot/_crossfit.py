r"""A combination of proxies learned from a few trained architectures, and what it is worth on those it has not seen.

**The rule.** Every proxy is turned so that higher is better as declared, and reduced to the normal scores of its ranks,
:math:`z = \Phi^{-1}((r - 1/2) / n)`. The combination is their sum with the weights of least squares under the
constraint that none is negative, scaled to sum to 1. The constraint is all the regularisation there is: with strongly
correlated columns it leaves a few positive weights, needs no penalty to be tuned, and never turns a proxy round.

**Cross-validation.** The architectures are dealt into 5 parts, 5 times anew. The weights, and the best single proxy for
comparison, are chosen on four parts and applied to the fifth, and tau is taken over all predictions of one deal; the
mean over the deals is the estimate. Ranks of scores need no label and are taken once over all.

**Its error.** Two things make it vary: which architectures are predicted, and which ones the rule was learned from.

.. math:: \sigma^2 = \sum_i a_i^2 + \frac{G - 1}{G} \sum_g (\tau_{(g)} - \bar\tau)^2

The first part comes from the influences of tau with the predictions held fixed (:mod:`naswot.statistics`), the second
is a jackknife that leaves one of G = 10 groups out of the training parts only; few groups, because the best single
proxy is no smooth function of the sample. Without a relation every pair of architectures tells twice, once each way
round, the two parts are equal, and the first alone would be short by half; with a strong one the second part vanishes.
Deleting a group altogether would add the two before squaring, twice too much. By the same count the variance without a
relation, from which the p-value comes, is twice Kendall's: :math:`4 (2n + 5) / (9 n (n - 1))`. Coverage over simulated
samples is in ``results/calibrate_verdicts.csv``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import ndtri
from scipy.stats import norm

from naswot.seeding import derive_seed, numpy_generator
from naswot.statistics import Comparison, Estimate, Floats, compare, estimate_around, kendall, kendall_interval

FOLDS = 5
DEALS = 5
GROUPS = 10

Choice = NDArray[np.bool_]


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold tau of the combination and of the best single proxy.

    Args:
        weights: of the combination learned from all architectures, (P,), at least 0, of sum 1, or all 0.
        combination: its cross-validated tau.
        p_value: two-sided, of no relation.
        single: tau of the best single proxy, chosen anew in every training part.
        gain: the combination over that.
        against: the combination over the baseline, if there is one.
    """

    weights: Floats
    combination: Estimate
    p_value: float
    single: Estimate
    gain: Comparison
    against: Comparison | None


def normal_scores(values: Floats) -> Floats:
    """Normal scores of the ranks of (n,) values, ties at the mean of theirs; what is NaN gets 0, the middle."""
    known = np.sort(values[~np.isnan(values)])
    below, up_to = np.searchsorted(known, values, "left"), np.searchsorted(known, values, "right")
    return np.where(np.isnan(values), 0.0, ndtri((below + up_to) / (2 * max(len(known), 1))))


def combination_weights(scores: Floats, truth: Floats) -> Floats:
    """Non-negative least squares of normal scores (n, P) on those of the truth (n,), (P,) of sum 1 (or all 0)."""
    weights: Floats = nnls(scores, truth)[0]
    total = weights.sum()
    return weights / total if total > 0 else weights


def best_single(scores: Floats, truth: Floats) -> Floats:
    """A weight of 1 on the column most correlated with the truth, (P,)."""
    weights = np.zeros(scores.shape[1])
    weights[np.argmax(truth @ scores)] = 1.0
    return weights


def cross_fit(
    columns: Floats, accuracies: Floats, baseline: Floats | None = None, *, level: float = 0.95, seed: int = 0
) -> CrossFit:
    """Learn the combination and cross-validate it beside the best single proxy.

    Args:
        columns: scores, (n, P), higher is better as declared; may hold NaN and infinities.
        accuracies: (n,), without NaN.
        baseline: scores of a fixed proxy to compare with, (n,).
        level: of the intervals.
        seed: of the deals.
    """
    n = len(accuracies)
    rng = numpy_generator(derive_seed(seed, "cross-validation", n))
    parts = np.stack([rng.permutation(n) % FOLDS for _ in range(DEALS)])
    groups = rng.permutation(n) % min(GROUPS, n)
    scores = np.stack([normal_scores(column) for column in columns.T], axis=1)
    predictions = _predictions(scores, accuracies, parts, np.ones(n, dtype=np.bool_))
    replicates = np.array(
        [_taus(_predictions(scores, accuracies, parts, groups != g), accuracies) for g in range(groups.max() + 1)]
    )  # (G, 2)
    combined, single = map(float, _taus(predictions, accuracies))
    errors = [math.hypot(_fixed_error(predictions[:, k], accuracies), _jackknife(replicates[:, k])) for k in (0, 1)]
    gain_error = math.hypot(_fixed_difference(predictions, accuracies), _jackknife(replicates[:, 0] - replicates[:, 1]))
    against = None
    if baseline is not None:
        pairs = np.stack([predictions[:, 0], np.broadcast_to(baseline, (DEALS, n))], axis=1)
        error = math.hypot(_fixed_difference(pairs, accuracies), _jackknife(replicates[:, 0]))
        against = _comparison(round(combined - kendall(baseline, accuracies), 12), error, n, level)
    return CrossFit(
        combination_weights(scores, normal_scores(accuracies)),
        estimate_around(combined, errors[0], n, level),
        _p_value(combined, math.sqrt(4 * (2 * n + 5) / (9 * n * (n - 1)))),
        estimate_around(single, errors[1], n, level),
        _comparison(combined - single, gain_error, n, level),
        against,
    )


def _predictions(scores: Floats, accuracies: Floats, parts: NDArray[np.int64], used: Choice) -> Floats:
    """Out-of-fold predictions of combination and best single proxy, (deals, 2, n), learned from ``used`` ones only."""
    result = np.zeros((len(parts), 2, len(accuracies)))
    for deal, part in enumerate(parts):
        for fold in range(FOLDS):
            held_out, learned = part == fold, (part != fold) & used
            truth = normal_scores(accuracies[learned])
            for k, rule in enumerate((combination_weights, best_single)):
                result[deal, k, held_out] = scores[held_out] @ rule(scores[learned], truth)
    return result


def _taus(predictions: Floats, accuracies: Floats) -> Floats:
    """Tau of both rules, mean over the deals, (2,); predictions that are all alike count as 0."""
    taus = np.array([[kendall(prediction, accuracies) for prediction in deal] for deal in predictions])
    mean: Floats = np.nan_to_num(taus).mean(axis=0)
    return np.round(mean, 12)  # a perfect order is exactly 1


def _fixed_error(predictions: Floats, accuracies: Floats) -> float:
    """Standard error of tau with the predictions (deals, n) held fixed, mean over the deals."""
    errors = []
    for prediction in predictions:
        found = kendall_interval(prediction, accuracies)
        if not math.isnan(found.low):
            errors.append((math.atanh(found.high) - math.atanh(found.low)) * (1 - found.value**2))
    return float(np.mean(errors)) / _WIDTH if errors else 0.0


def _fixed_difference(predictions: Floats, accuracies: Floats) -> float:
    """Standard error of a difference of taus with both predictions (deals, 2, n) held fixed, mean over the deals."""
    found = [compare(first, second, accuracies).difference for first, second in predictions]
    errors = [each.high - each.low for each in found if not math.isnan(each.low)]
    return float(np.mean(errors)) / _WIDTH if errors else 0.0


_WIDTH = 2 * float(norm.ppf(0.975))
"""Width of a 95 % interval in standard errors."""


def _jackknife(replicates: Floats) -> float:
    """Standard error by a jackknife over groups."""
    return math.sqrt((len(replicates) - 1) * float(np.var(replicates)))


def _comparison(difference: float, error: float, n: int, level: float) -> Comparison:
    half = float(norm.ppf((1 + level) / 2)) * error
    return Comparison(Estimate(difference, difference - half, difference + half, n), _p_value(difference, error))


def _p_value(value: float, error: float) -> float:
    return 2 * float(norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
