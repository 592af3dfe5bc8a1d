"""Means and noise of repeated scores, when some architectures were repeated more often than others.

Score of architecture a in repeat r: s_ar = mu_a + b_r + e_ar. All architectures see the same batch in a repeat, so b_r
moves all alike: it must not pass for noise, nor put those ahead that were drawn with other batches. mu and b are fitted
by least squares, where the sum of b is 0, and the noise is pooled, since two or three repeats tell too little about one
architecture:

    noise^2 = sum of squared residuals / (repeats - architectures - (rounds - 1))

That is the pooled within-architecture variance sum (n_a - 1) s_a^2 / sum (n_a - 1) with the batches taken out. Who has
one repeat adds nothing to it, and the spread between architectures never does.

What it does not see: repeats go to the better ones, so the noise is theirs; who is noisier has a larger error than is
told. And who is repeated was lucky in the first repeat, of which the fit takes a part for that repeat's batch: beside
those scored once, means of the repeated ones may be some tenths of the noise too high. Between equally repeated ones
that cancels, and a race asks for several standard errors. results/replication.csv tells how many intervals hold on real
scores.

References:
    Searle, Linear Models, Wiley 1971, ch. 7: the two-way layout with unequal numbers, its normal equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Vector = NDArray[np.float64]


class Fit:
    """Least squares of architecture + batch; the repeats of each architecture are the first ones of all.

    Args:
        rows: finite values of each of M architectures, in the order of the repeats.
    """

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.counts = np.array([len(row) for row in rows], dtype=np.int64)  # (M,)
        rounds = int(self.counts.max(initial=1))
        done = np.arange(rounds) < self.counts[:, None]  # (M, R) bool
        first = np.array([row[0] for row in rows], dtype=np.float64)
        change = np.zeros(done.shape)  # since the first repeat: exactly 0 for a score without noise
        change[done] = [value - row[0] for row in rows for value in row]
        own = change.sum(1) / self.counts
        shares = (
            np.tril(np.ones((rounds, rounds))) / np.arange(1, rounds + 1)[:, None]
        )  # row n - 1: weights of n repeats
        normal = np.zeros((rounds, rounds))  # equations of the batches, architectures eliminated
        for n, how_many in zip(*np.unique(self.counts, return_counts=True), strict=True):
            normal[:n, :n] += how_many * (np.eye(n) - 1 / n)
        self._inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)  # 0 on average over the rounds
        batches: Vector = self._inverse @ (done * (change - own[:, None])).sum(0)
        self._shares = shares
        shift = shares[self.counts - 1] @ batches
        self.means: Vector = first + own - shift
        residuals = done * (change - own[:, None] - batches + shift[:, None])
        self.degrees = int(self.counts.sum()) - len(rows) - (rounds - 1)
        self.noise = math.sqrt(float(np.square(residuals).sum()) / self.degrees) if self.degrees > 0 else None

    def errors(self) -> list[float | None]:
        """Standard error of each mean."""
        if self.noise is None:
            return [None] * len(self.means)
        scale = np.sqrt(1 / np.arange(1, len(self._shares) + 1) + self._variance(self._shares))
        return [float(self.noise * scale[n - 1]) for n in self.counts]

    def in_doubt(self, best: int, error_level: float) -> NDArray[np.bool_]:
        """(M,) bool: neither beats all but ``best`` - 1 others nor is beaten by ``best``."""
        beats, beaten = np.zeros(len(self.means), dtype=np.int64), np.zeros(len(self.means), dtype=np.int64)
        sizes = np.unique(self.counts)
        for n in sizes:
            mine = self.means[self.counts == n]
            for m in sizes:
                theirs = np.sort(self.means[self.counts == m])
                gap = self._gap(int(n), int(m), error_level)
                beats[self.counts == n] += np.searchsorted(theirs, mine - gap, side="left")
                beaten[self.counts == n] += len(theirs) - np.searchsorted(theirs, mine + gap, side="right")
        inside: NDArray[np.bool_] = beats >= len(self.means) - best
        return ~inside & (beaten < best)

    def _gap(self, n: int, m: int, error_level: float) -> float:
        """Difference that tells an architecture with n repeats from one with m."""
        if self.noise is None:
            return math.inf
        of_batches = float(self._variance(self._shares[n - 1] - self._shares[m - 1]))
        quantile = float(stats.t.isf(error_level, self.degrees))
        return quantile * self.noise * math.sqrt(1 / n + 1 / m + of_batches)

    def _variance(self, weights: Vector) -> Vector:
        """Of sums of the fitted batches with such weights, (..., R) to (...), in units of the noise's variance."""
        result: Vector = np.einsum("...i,ij,...j->...", weights, self._inverse, weights)
        return result
