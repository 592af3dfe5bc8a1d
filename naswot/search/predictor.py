"""Predictor-guided search: a model of the results so far chooses what is evaluated next.

Papers: White, Neiswanger and Savani, BANANAS, AAAI 2021, arXiv:1910.11858, whose loop this is (random architectures;
then fit, choose ten of a pool by an acquisition function, evaluate, fit again; the pool are mutations of the best);
White et al., How Powerful are Performance Predictors in Neural Architecture Search?, NeurIPS 2021, arXiv:2104.01177,
found tree models and Gaussian processes on such codes to be among the best with few results. Differences: a random
forest or a Gaussian process in the place of an ensemble of networks on path codes; random architectures stand in the
pool beside mutations; zero-cost scores may be added as features (the same paper; Shen et al., ProxyBO,
arXiv:2110.10423).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np

from naswot.errors import OptionError
from naswot.search._surrogates import Features, Floats, Prediction, expected_improvement, fit_forest, fit_gp
from naswot.search._unseen import draw_unseen
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype

_FITS = {"forest": fit_forest, "gp": fit_gp}
_ACQUISITIONS = ("ei", "ucb", "thompson")


@register_searcher
class Predictor(Searcher):
    """A forest or Gaussian process on one-hot codes proposes the most promising of a pool; none twice.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        model: ``"forest"`` or ``"gp"``; the latter needs some ten times as long.
        acquisition: ``"ei"`` (expected improvement, as SMAC with a forest: Hutter et al., LION 2011), ``"ucb"`` (mean
            + beta deviations) or ``"thompson"`` (a normal draw for each architecture, as BANANAS).
        n_initial: random architectures before the first model.
        refit: results after which the model is fitted again and a new pool is ranked.
        n_trees: of the forest.
        n_random: random architectures in a pool.
        n_mutated: mutations of the best in a pool.
        n_parents: how many of the best are mutated.
        beta: of ``"ucb"``.
        features: further numbers that describe a genotype, such as scores of the untrained network; called once for
            each architecture of a pool. They may be infinite.
    Raises:
        OptionError: if an option is out of range.
    """

    name: ClassVar[str] = "predictor"
    reference: ClassVar[str] = "White et al., AAAI 2021, arXiv:1910.11858; White et al., NeurIPS 2021, arXiv:2104.01177"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        model: Literal["forest", "gp"] = "forest",
        acquisition: Literal["ei", "ucb", "thompson"] = "ei",
        n_initial: int = 20,
        refit: int = 10,
        n_trees: int = 50,
        n_random: int = 100,
        n_mutated: int = 100,
        n_parents: int = 5,
        beta: float = 1.0,
        features: Callable[[Genotype], Sequence[float]] | None = None,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if model not in _FITS or acquisition not in _ACQUISITIONS:
            raise OptionError(
                f"expected model {' or '.join(_FITS)} and acquisition {', '.join(_ACQUISITIONS)}, "
                f"but got {model!r} and {acquisition!r}"
            )
        counts = {"n_initial": n_initial, "refit": refit, "n_trees": n_trees, "n_parents": n_parents}
        if min(counts.values()) < 1 or min(n_random, n_mutated) < 0 or n_random + n_mutated < 1 or beta < 0:
            shown = ", ".join(f"{key} {value}" for key, value in counts.items())
            raise OptionError(
                f"expected counts of at least 1, a pool of at least 1 and beta of at least 0, but got {shown}, "
                f"n_random {n_random}, n_mutated {n_mutated}, beta {beta}"
            )
        self._model, self._acquisition, self._beta = model, acquisition, beta
        self._n_initial, self._refit, self._n_trees = n_initial, refit, n_trees
        self._n_random, self._n_mutated, self._n_parents = n_random, n_mutated, n_parents
        self._features = Features(space.choices, features)
        self._values: dict[Genotype, float] = {}
        self._ranked: list[Genotype] = []  # a pool, most promising first
        self._due = 0  # results at which the next model is fitted
        self._passed = (0, 0)  # trials asked, and how many of the ranked were offered since without becoming a trial

    def propose(self) -> Proposal | None:
        """A random architecture at first, then the most promising one."""
        found = self.candidates(1)
        return found[0] if found else None

    def candidates(self, n: int) -> list[Proposal]:
        """Up to ``n`` random architectures, or the most promising ones that were not offered since the last trial."""
        seen = {*self._values, *(trial.genotype for trial in self._asked.values())}
        if self.n_enqueued or self.n_asked < self._n_initial or not self._finite():
            if self.n_asked >= self._n_initial and self._asked and not self.n_enqueued:
                return []  # nothing is known yet
            drawn = [draw_unseen(self, seen) for _ in range(1 if self.n_enqueued else n)]
            return [Proposal(genotype) for genotype in drawn if genotype is not None]
        if len(self._values) >= self._due:
            self._rank()
        asked, passed = self._passed if self._passed[0] == self.n_asked else (self.n_asked, 0)
        left = [genotype for genotype in self._ranked if genotype not in seen]
        self._passed = (asked, passed + n)
        chosen = left[passed : passed + n] or left[:n]
        if not chosen:  # the pool is used up
            last = draw_unseen(self, seen)
            chosen = [] if last is None else [last]
        return [Proposal(genotype) for genotype in chosen]

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Remember the value; what failed is worse than all."""
        self._values[trial.genotype] = -math.inf if values is None else values[0]

    def _finite(self) -> list[float]:
        return [value for value in self._values.values() if math.isfinite(value)]

    def _rank(self) -> None:
        """Fit the model to what is known, and rank a new pool."""
        finite = self._finite()
        known = list(self._values)
        # What failed counts as the worst result: the model is to stay away from its like.
        targets = np.clip(np.array([self._values[genotype] for genotype in known]), min(finite), max(finite))
        seed = int(self.rng.integers(2**31))
        predict: Prediction = _FITS[self._model](self._features.fit(known), targets, n_trees=self._n_trees, seed=seed)
        pool = self._pool()
        worth = self._worth(*predict(self._features(pool)), best=float(targets.max())) if pool else np.zeros(0)
        self._ranked = [pool[int(i)] for i in np.argsort(-worth, kind="stable")]
        self._due = len(self._values) + self._refit

    def _pool(self) -> list[Genotype]:
        """Different architectures that were not tried: mutations of the best, and random ones."""
        best = sorted(self._values, key=self._values.__getitem__, reverse=True)[: self._n_parents]
        mutated = (self.space.mutate(best[i % len(best)], self.rng) for i in range(self._n_mutated))
        drawn = (self.space.sample(self.rng) for _ in range(self._n_random))
        known = {*self._values, *(trial.genotype for trial in self._asked.values())}
        return [genotype for genotype in dict.fromkeys([*mutated, *drawn]) if genotype not in known]

    def _worth(self, mean: Floats, deviation: Floats, *, best: float) -> Floats:
        if self._acquisition == "ei":
            return expected_improvement(mean, deviation, best)
        if self._acquisition == "ucb":
            return mean + self._beta * deviation
        return mean + deviation * self.rng.standard_normal(len(mean))
