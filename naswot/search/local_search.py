"""Local search: climb to a local optimum, then begin again elsewhere.

Paper: White, Nolen and Savani, Exploring the Loss Landscape in Neural Architecture Search, UAI 2021, arXiv:2005.02960
("Local search is state of the art for NAS benchmarks" in its first version): evaluate all neighbours, move to the best
if it is better, stop if none is. Original code: github.com/naszilla/naszilla, whose defaults differ from the paper: it
begins at the best of 10 random architectures (``n_initial=10``) and moves to the first better neighbour
(``move="first"``). Differences: neighbours evaluated on the way to an earlier place count as known, and the search
goes on at a random architecture after each optimum until nothing is left.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from naswot.errors import OptionError
from naswot.search._unseen import draw_unseen
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class LocalSearch(Searcher):
    """Hill climbing over ``space.neighbours``; no architecture is evaluated twice.

    Architectures put in from outside are evaluated at the next start, which is made at the best of them.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        n_initial: random architectures of which the best is where a climb begins.
        move: ``"best"``: evaluate all neighbours and go to the best; ``"first"``: go to the first that is better.
    Raises:
        OptionError: if ``n_initial`` is below 1 or there is no such move.
    """

    name: ClassVar[str] = "local_search"
    reference: ClassVar[str] = "White et al., UAI 2021, arXiv:2005.02960"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        n_initial: int = 1,
        move: Literal["best", "first"] = "best",
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if n_initial < 1 or move not in ("best", "first"):
            raise OptionError(
                f"expected n_initial of at least 1 and move 'best' or 'first', but got {n_initial} and {move!r}"
            )
        self._n_initial, self._move = n_initial, move
        self._values: dict[Genotype, float] = {}
        self._begun = 0  # number of the first trial of this climb
        self._starts: list[Genotype] = []
        self.current: Genotype | None = None  # None while a start is looked for
        self._neighbours: list[Genotype] = []

    def propose(self) -> Proposal | None:
        """A start, or a random one of the neighbours that were not tried."""
        found = self.candidates(1)
        return found[0] if found else None

    def candidates(self, n: int) -> list[Proposal]:
        """Up to ``n`` starts or neighbours; none while results are needed or when the space is exhausted."""
        while True:
            if self.current is None:
                drawn = self._draw(1 if self.n_enqueued else n)
                if drawn or self._asked or not self._starts:
                    return drawn
                self._go(max(self._starts, key=self._values.__getitem__))
            better = self._better()
            if better is not None:
                self._go(better)
                continue
            seen = self._seen()
            untried = [genotype for genotype in self._neighbours if genotype not in seen]
            if untried:
                order = self.rng.permutation(len(untried))[:n]
                return [Proposal(untried[int(i)]) for i in order]
            if any(genotype not in self._values for genotype in self._neighbours):
                return []
            self.current, self._starts, self._begun = None, [], self.n_asked  # a local optimum

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Remember the value; what failed is worse than all."""
        self._values[trial.genotype] = -math.inf if values is None else values[0]
        if self.current is None and trial.number >= self._begun:
            self._starts.append(trial.genotype)

    def _draw(self, n: int) -> list[Proposal]:
        """Up to ``n`` alternatives for the next start; none if enough were asked or nothing is left."""
        if self.n_asked - self._begun >= self._n_initial and not self.n_enqueued:
            return []
        seen = self._seen()
        drawn = (draw_unseen(self, seen) for _ in range(n))
        return [Proposal(genotype) for genotype in drawn if genotype is not None]

    def _go(self, genotype: Genotype) -> None:
        self.current = genotype
        around = self.space.neighbours(genotype)
        self._neighbours = [around[int(i)] for i in self.rng.permutation(len(around))]

    def _better(self) -> Genotype | None:
        """Where to move from here, as far as it is known."""
        assert self.current is not None
        here = self._values[self.current]
        known = [genotype for genotype in self._neighbours if genotype in self._values]
        if self._move == "first":
            return next((genotype for genotype in known if self._values[genotype] > here), None)
        if not known or len(known) < len(self._neighbours):
            return None
        best = max(known, key=self._values.__getitem__)
        return best if self._values[best] > here else None

    def _seen(self) -> set[Genotype]:
        return {*self._values, *(trial.genotype for trial in self._asked.values())}
