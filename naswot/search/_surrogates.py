"""Models that predict a value and how sure they are of it, for predictor-guided search."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from naswot.types import Genotype

Floats = NDArray[np.float64]
Inputs = NDArray[np.float32]
Prediction = Callable[[Inputs], tuple[Floats, Floats]]
"""(n, F) inputs to (n,) means and (n,) standard deviations."""


def fit_forest(inputs: Inputs, values: Floats, *, n_trees: int, seed: int) -> Prediction:
    """Random forest (Breiman, 2001); the standard deviation is that over the trees (SMAC, Hutter et al., 2011)."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_trees, random_state=seed, n_jobs=1).fit(inputs, values)

    def predict(rows: Inputs) -> tuple[Floats, Floats]:
        each = np.stack([tree.predict(rows, check_input=False) for tree in forest.estimators_])
        return each.mean(axis=0), each.std(axis=0)

    return predict


def fit_gp(inputs: Inputs, values: Floats, *, n_trees: int, seed: int) -> Prediction:  # noqa: ARG001
    """Gaussian process; on one-hot codes its kernel is a function of the number of positions that differ."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel() * RBF(length_scale=2.0) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound is a result like any other
        process.fit(inputs.astype(np.float64), values)

    def predict(rows: Inputs) -> tuple[Floats, Floats]:
        mean, deviation = process.predict(rows.astype(np.float64), return_std=True)
        return mean, deviation

    return predict


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Of normal predictions over ``best`` (Jones, Schonlau and Welch, 1998), (n,)."""
    spread = np.maximum(deviation, 1e-12)
    z = (mean - best) / spread
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    improvement: Floats = spread * (z * ndtr(z) + density)
    return improvement


class Features:
    """Inputs of a model: one-hot codes and, if wanted, further features, each computed once.

    Args:
        choices: options by position.
        extra: numbers that describe a genotype, such as scores of untrained networks; may be infinite.
    """

    def __init__(self, choices: Sequence[int], extra: Callable[[Genotype], Sequence[float]] | None) -> None:
        self._starts, self._width = np.cumsum([0, *choices[:-1]]), sum(choices)
        self._extra = extra
        self._known: dict[Genotype, Floats] = {}
        self._low = self._high = np.zeros(0)

    def fit(self, genotypes: Sequence[Genotype]) -> Inputs:
        """(n, F) inputs; the range of each further feature is taken from these genotypes."""
        if self._extra is not None:
            table = self._table(genotypes)
            finite = np.where(np.isfinite(table), table, np.nan)
            empty = np.isnan(finite).all(axis=0)
            finite[:, empty] = 0.0
            self._low, self._high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
        return self(genotypes)

    def __call__(self, genotypes: Sequence[Genotype]) -> Inputs:
        """(n, F) inputs: one-hot codes, then the features in [0, 1], clipped to the range; NaN counts as -inf."""
        codes = np.zeros((len(genotypes), self._width), dtype=np.float32)
        codes[np.arange(len(genotypes))[:, None], self._starts + np.array(genotypes)] = 1.0
        if self._extra is None:
            return codes
        table = np.nan_to_num(self._table(genotypes), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        span = np.where(self._high > self._low, self._high - self._low, 1.0)
        scaled = (np.clip(table, self._low, self._high) - self._low) / span
        return np.hstack([codes, scaled.astype(np.float32)])

    def _table(self, genotypes: Sequence[Genotype]) -> Floats:
        assert self._extra is not None
        for genotype in genotypes:
            if genotype not in self._known:
                self._known[genotype] = np.asarray(self._extra(genotype), dtype=np.float64).reshape(-1)
        return np.stack([self._known[genotype] for genotype in genotypes])
