"""Regularised (aging) evolution.

Paper: Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019, arXiv:1802.01548,
Algorithm 1. Defaults are those of NAS-Bench-201 (Dong and Yang, ICLR 2020): P = 10, S = 3; the paper has P = 100,
S = 25. Differences: a mutation is ``space.mutate``, and a child that failed to train enters the population as worse
than all; ``replace=False`` draws tournaments of different members.
"""

from __future__ import annotations

import math
from collections import deque
from typing import ClassVar

from naswot.errors import OptionError
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class RegularizedEvolution(Searcher):
    """The best of a random few has a child, and the oldest dies, however good it is.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        population: P, also the number of random architectures at the start.
        sample: S, members of a tournament.
        replace: draw tournaments with replacement.
    Raises:
        OptionError: if not 1 <= sample <= population.
    """

    name: ClassVar[str] = "regularized_evolution"
    reference: ClassVar[str] = "Real et al., AAAI 2019, arXiv:1802.01548"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        population: int = 10,
        sample: int = 3,
        replace: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if not 1 <= sample <= population:
            raise OptionError(f"expected 1 <= sample <= population, but got sample {sample}, population {population}")
        self._sample, self._replace, self._size = sample, replace, population
        self.population: deque[tuple[Genotype, float]] = deque(maxlen=population)  # the oldest is on the left

    def propose(self) -> Proposal | None:
        """A random architecture until P were proposed, then a mutated winner of a tournament."""
        if self.n_asked < self._size or self.n_enqueued:
            return Proposal(self.draw())
        if not self.population:
            return None
        n = self._sample if self._replace else min(self._sample, len(self.population))
        drawn = self.rng.choice(len(self.population), size=n, replace=self._replace)
        parent, _ = max((self.population[int(i)] for i in drawn), key=lambda member: member[1])
        return Proposal(self.space.mutate(parent, self.rng))

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Append on the right; a full population loses its oldest on the left."""
        self.population.append((trial.genotype, -math.inf if values is None else values[0]))
