"""What one gets who trusts a score: the best few by score, against the best few in truth.

Everywhere: of equal scores the worse item comes first, so that a score cannot gain by not deciding; items without a
score (NaN) come last; items without a truth (NaN) are left out. Higher is better on both sides.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naswot.errors import InputError
from naswot.statistics import Floats, kendall


def by_score(score: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    """Order of the items by score, best first, and their truth, both (n,) over items with a truth.

    Raises:
        InputError: if the two are no vectors of one length.
    """
    scores, truths = np.asarray(score, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != truths.shape:
        raise InputError(f"expected two vectors of one length, but got shapes {scores.shape} and {truths.shape}")
    known = ~np.isnan(truths)
    scores, truths = scores[known], truths[known]
    unscored = np.isnan(scores)
    return np.lexsort((truths, np.where(unscored, 0.0, -scores), unscored)), truths


def precision_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """Share of the k best by score that are among the k best in truth; what ties with the k-th best counts as such."""
    order, truths = _checked(score, truth, k)
    return float(np.mean(truths[order[:k]] >= np.sort(truths)[-k]))


def best_rank_at(score: ArrayLike, truth: ArrayLike, k: int) -> int:
    """True rank, 1 for the best of all, of the best item among the k best by score; ties share the better rank."""
    order, truths = _checked(score, truth, k)
    return 1 + int(np.count_nonzero(truths > truths[order[:k]].max()))


def regret_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """Best truth of all minus the best among the k best by score, in the unit of the truth."""
    order, truths = _checked(score, truth, k)
    return float(truths.max() - truths[order[:k]].max())


def ndcg_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    r"""Normalised discounted cumulative gain of the k best by score, within (0, 1].

    .. math:: \frac{1}{Z} \sum_{j=1}^k \frac{2^{a_j} - 1}{\log_2(1 + j)}

    with the truths a in percent, so that a point less halves the gain, and Z the sum for the true order. As in VKDNW
    (Tybl and Neumann, CVPR 2025, arXiv:2502.04975), where k is 1,000. NaN where a truth is negative.
    """
    order, truths = _checked(score, truth, k)
    highest = truths.max()
    if truths.min() < 0:
        return math.nan
    gains = np.exp2(truths - highest) - np.exp2(-highest)  # both divided by 2^highest, which the quotient loses
    discounts = np.log2(2.0 + np.arange(k))
    ideal = float((np.sort(gains)[::-1][:k] / discounts).sum())
    return float((gains[order[:k]] / discounts).sum()) / ideal if ideal > 0 else math.nan


def tau_in_top(score: ArrayLike, truth: ArrayLike, share: float) -> float:
    """Tau-b among the best share of the items in truth, those that tie with the last one included.

    Raises:
        InputError: if the share is not within (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"expected a share within (0, 1], but got {share}")
    scores, truths = np.asarray(score, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    known = ~np.isnan(truths)
    scores, truths = scores[known], truths[known]
    if len(truths) == 0:
        return math.nan
    top = truths >= np.sort(truths)[-math.ceil(share * len(truths))]
    return kendall(scores[top], truths[top])


def _checked(score: ArrayLike, truth: ArrayLike, k: int) -> tuple[NDArray[np.int64], Floats]:
    order, truths = by_score(score, truth)
    if not 1 <= k <= len(truths):
        raise InputError(f"expected k from 1 to the {len(truths)} items with a truth, but got {k}")
    return order, truths
