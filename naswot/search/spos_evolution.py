"""The evolution of SPOS: generations of mutants and children of the best ten of all so far.

Paper: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, arXiv:1904.00420,
algorithm 1, with its constants: 20 generations of 50, of which 25 are mutants (each gene is drawn anew with probability
0.1), 25 are crossings, and random architectures fill up what came out twice. Original code:
github.com/megvii-model/SinglePathOneShot. Differences: it knows nothing of the supernet and serves any evaluator;
limits are those of the space, see :class:`naswot.constraints.ConstrainedSpace`; crossings are the space's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Final

from naswot.errors import OptionError
from naswot.search._unseen import draw_unseen
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype

_TRIES: Final = 10  # attempts for each mutant or crossing that is wanted, as in the original code


@register_searcher
class SPOSEvolution(Searcher):
    """The best of all generations have mutants and children; no architecture is proposed twice.

    All trials of a generation have to be told before the next is made.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        population: architectures of a generation; the first is random.
        generations: after which nothing is proposed any more.
        parents: so many of the best of all so far have offspring.
        mutants: share of a generation that are mutants of one parent.
        crossings: share that are crossings of two.
        mutation: probability with which each gene of a mutant is drawn anew.
    Raises:
        OptionError: if a number is below 1, a share or the probability outside of [0, 1], or both shares above 1.
    """

    name: ClassVar[str] = "spos_evolution"
    reference: ClassVar[str] = "Guo et al., ECCV 2020, arXiv:1904.00420"
    ends = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        population: int = 50,
        generations: int = 20,
        parents: int = 10,
        mutants: float = 0.5,
        crossings: float = 0.5,
        mutation: float = 0.1,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if min(population, generations, parents) < 1:
            raise OptionError(
                "expected population, generations and parents of at least 1, but got "
                f"{population}, {generations}, {parents}"
            )
        if min(mutants, crossings, mutation) < 0 or mutants + crossings > 1 or mutation > 1:
            raise OptionError(
                "expected shares of mutants and crossings that add up to 1 at most, and a probability of mutation in "
                f"[0, 1], but got {mutants}, {crossings} and {mutation}"
            )
        self._size, self._generations, self._n_parents = population, generations, parents
        self._shares, self._mutation = (mutants, crossings), mutation
        self._generation: list[Genotype] = []
        self._n_begun = 0  # generations
        self._first = 0  # number of the present generation's first trial
        self._n_told = 0  # trials
        self._seen: set[Genotype] = set()
        self._best: list[tuple[float, Genotype]] = []

    @property
    def planned(self) -> int:
        """Generations times their size."""
        return self._size * self._generations

    def propose(self) -> Proposal | None:
        """The next member of the generation; None until all of it was told, and after the last."""
        place = self.n_asked - self._first
        if place >= len(self._generation):
            if self._n_told < self.n_asked or self._n_begun == self._generations:
                return None
            self._begin()
            place = 0
        return Proposal(self._generation[place]) if self._generation else None

    def candidates(self, n: int) -> list[Proposal]:  # noqa: ARG002
        """The next member of the generation; it has no alternatives."""
        proposal = self.propose()
        return [] if proposal is None else [proposal]

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Keep the best; what failed is worse than all."""
        self._n_told += 1
        self._seen.add(trial.genotype)
        self._best.append((-math.inf if values is None else values[0], trial.genotype))
        self._best.sort(key=lambda member: -member[0])  # stable: of equals the earlier
        del self._best[self._n_parents :]

    def _begin(self) -> None:
        """The next generation: what was put in from outside, mutants, crossings, and random ones up to its size."""
        self._generation, self._first = [], self.n_asked
        while self.n_enqueued:
            self._take(self.draw())
        if self._best:
            for share, make in zip(self._shares, (self._mutant, self._crossing), strict=True):
                self._breed(make, math.floor(share * self._size))
        while len(self._generation) < self._size:
            genotype = draw_unseen(self, self._seen)
            if genotype is None:
                break  # the space is used up
            self._take(genotype)
        self._n_begun = self._n_begun + 1 if self._generation else self._generations

    def _take(self, genotype: Genotype) -> bool:
        """Add to the generation what was never proposed; whether it was so."""
        if genotype in self._seen:
            return False
        self._seen.add(genotype)
        self._generation.append(genotype)
        return True

    def _breed(self, make: Callable[[], Genotype | None], wanted: int) -> None:
        found = 0
        for _ in range(_TRIES * wanted):
            if found == wanted or len(self._generation) >= self._size:
                break
            genotype = make()
            found += genotype is not None and self._take(genotype)

    def _parent(self) -> Genotype:
        return self._best[int(self.rng.integers(len(self._best)))][1]

    def _mutant(self) -> Genotype | None:
        """A parent with some genes drawn anew; None where the space does not contain it."""
        hit = self.rng.random(len(self.space.choices)) < self._mutation
        drawn = self.rng.integers(self.space.choices)
        genes = zip(self._parent(), hit.tolist(), drawn.tolist(), strict=True)
        changed = tuple(new if here else gene for gene, here, new in genes)
        return changed if changed not in self._seen and self.space.is_valid(changed) else None

    def _crossing(self) -> Genotype:
        return self.space.crossover(self._parent(), self._parent(), self.rng)
