"""The practical path: screen many untrained, train the best few briefly, train the finalists fully.

Ours; its parts are the screening of Mellor et al., ICML 2021, arXiv:2006.04647, and one halving of Jamieson and
Talwalkar, AISTATS 2016, arXiv:1502.07943. Each stage is paid with what the one before has saved.
"""

from __future__ import annotations

import math
from typing import ClassVar

from naswot.assisted import best_scored, needs_scorer
from naswot.errors import OptionError
from naswot.searcher import Proposal, Scorer, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class Cascade(Searcher):
    """Score many untrained, train the best few briefly and the best of these fully.

    ``screened`` are scored, ``kept`` trained for ``brief`` epochs and ``finalists`` for ``full`` epochs. Networks that
    are the same by ``space.representative`` are scored once.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: number of values that are told; the first decides.
        scorer: scores untrained architectures.
        screened: distinct architectures to score.
        kept: how many of them are trained briefly.
        finalists: how many of these are trained fully.
        brief: epochs of the brief training.
        full: epochs of the full one; None leaves it to the evaluator.
    Raises:
        OptionError: if there is no scorer, or a stage would be larger than the one before.
    """

    name: ClassVar[str] = "cascade"
    reference: ClassVar[str] = "naswot; after Mellor et al., 2021, and Jamieson & Talwalkar, 2016"
    multi_objective: ClassVar[bool] = True
    ends = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        scorer: Scorer | None = None,
        screened: int = 100,
        kept: int = 8,
        finalists: int = 1,
        brief: int = 2,
        full: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if not 1 <= finalists <= kept <= screened or brief < 1 or (full is not None and full < brief):
            raise OptionError(
                "expected 1 <= finalists <= kept <= screened and 1 <= brief <= full, but got finalists "
                f"{finalists}, kept {kept}, screened {screened}, brief {brief}, full {full}"
            )
        self.scorer: Scorer = needs_scorer(self.name, scorer, space)
        self._screened, self._kept, self._finalists, self._brief, self._full = screened, kept, finalists, brief, full
        self._stage: list[Genotype] | None = None
        self._values: list[tuple[float, Genotype]] = []

    def propose(self) -> Proposal | None:
        """Those of the brief stage, best score first; then, when all are known, the finalists."""
        if self._stage is None:
            self._stage = best_scored(self._distinct(), self.scorer, self._kept)
        n_brief = len(self._stage)
        if self.n_asked < n_brief:
            return Proposal(self._stage[self.n_asked], self._brief)
        if len(self._values) < n_brief:
            return None
        able = [pair for pair in self._values if pair[0] > -math.inf]
        if self.n_asked >= n_brief + min(self._finalists, len(able)):
            return None
        order = sorted(able, key=lambda pair: -pair[0])
        return Proposal(order[self.n_asked - n_brief][1], self._full)

    def candidates(self, n: int) -> list[Proposal]:  # noqa: ARG002
        """The next trial; it has no alternatives."""
        proposal = self.propose()
        return [] if proposal is None else [proposal]

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Keep the values of the brief stage."""
        if self._stage is not None and trial.number < len(self._stage):
            self._values.append((-math.inf if values is None else values[0], trial.genotype))

    def _distinct(self) -> list[Genotype]:
        """Up to ``screened`` different networks; fewer where the space holds no more or they are too rare."""
        found: dict[Genotype, Genotype] = {}
        for _ in range(20 * self._screened):
            genotype = self.draw()
            found.setdefault(self.space.representative(genotype), genotype)
            if len(found) == self._screened:
                break
        return list(found.values())

    @property
    def planned(self) -> int:
        """Brief and full trainings."""
        return self._kept + self._finalists
