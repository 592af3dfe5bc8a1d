"""Large-scale evolution: pairwise tournaments in a population that begins with the simplest networks.

Paper: Real et al., Large-Scale Evolution of Image Classifiers, ICML 2017, arXiv:1703.01041: a worker picks two members
at random, kills the worse at once and trains a mutation of the better, which inherits the weights of layers that still
fit. Differences: a population of 50 by default where the paper has 1,000 and some 10^4 trainings or more; the pair is
picked when a trial is asked for, so that open trials are the paper's asynchronous workers; a child that failed enters
as worse than all. On a space that has the paper's own mutations (``propose_mutation``) and first networks (``start``)
these are used; on any other ``mutate`` and random architectures.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from naswot.errors import OptionError
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype


@runtime_checkable
class Mutable(Protocol):
    """A space that has mutations of its own and says which of them keep trained weights."""

    def propose_mutation(self, genotype: Genotype, rng: np.random.Generator) -> tuple[Genotype, bool]:
        """A mutated genotype, and whether it may inherit the weights of its parent."""
        ...


@runtime_checkable
class Startable(Protocol):
    """A space that says where an evolution begins."""

    def start(self) -> Genotype:
        """The simplest architecture."""
        ...


class Member(NamedTuple):
    """One of the population.

    Args:
        genotype: the architecture.
        value: what was told; -inf if it failed.
        number: of its trial.
    """

    genotype: Genotype
    value: float
    number: int


@register_searcher
class LargeScaleEvolution(Searcher):
    """Of two random members the worse dies, and the better has a mutated child.

    ``parent`` of a trial is the trial whose weights it may inherit.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        population: members at the start; the paper has 1,000.
    Raises:
        OptionError: if the population is below 2.
    """

    name: ClassVar[str] = "large_scale_evolution"
    reference: ClassVar[str] = "Real et al., ICML 2017, arXiv:1703.01041"

    def __init__(self, space: SearchSpace, *, seed: int = 0, n_objectives: int = 1, population: int = 50) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if population < 2:
            raise OptionError(f"expected a population of at least 2, but got {population}")
        self._size = population
        self.population: list[Member] = []
        self._doomed: Member | None = None  # dies when one of the last proposals becomes a trial

    def propose(self) -> Proposal | None:
        """A first network until the population is complete, then a child; None while fewer than two are known."""
        found = self.candidates(1)
        return found[0] if found else None

    def candidates(self, n: int) -> list[Proposal]:
        """Up to ``n`` first networks, or so many children of one parent."""
        self._doomed = None
        if self.n_enqueued:
            return [Proposal(self.draw())]
        if self.n_asked < self._size:
            if isinstance(self.space, Startable):
                return [Proposal(self.space.start())]
            return [Proposal(self.draw()) for _ in range(n)]
        if len(self.population) < 2:
            return []
        first, second = (self.population[int(i)] for i in self.rng.choice(len(self.population), 2, replace=False))
        self._doomed, better = sorted((first, second), key=lambda member: member.value)
        return [self._child(better) for _ in range(n)]

    def submit(self, proposal: Proposal | Genotype) -> Trial:
        """Make a trial of one of the last proposals; the loser of its pair dies."""
        if self._doomed is not None:
            self.population.remove(self._doomed)
            self._doomed = None
        return super().submit(proposal)

    def learn(self, trial: Trial, values: Values | None) -> None:
        """It joins the population."""
        self.population.append(Member(trial.genotype, -math.inf if values is None else values[0], trial.number))

    def _child(self, parent: Member) -> Proposal:
        heir = parent.number if parent.value > -math.inf else None  # what failed has no weights to give
        if not isinstance(self.space, Mutable):
            return Proposal(self.space.mutate(parent.genotype, self.rng), parent=heir)
        genotype, inherits = self.space.propose_mutation(parent.genotype, self.rng)
        return Proposal(genotype, parent=heir if inherits else None)
