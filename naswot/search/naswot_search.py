"""NASWOT's search: the best score of N untrained networks, which alone is trained.

Paper: Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647, Algorithm 1. As there,
architectures are drawn with replacement, a singular kernel (-inf) never wins against a number, and of equal scores the
one drawn first is taken.
"""

from __future__ import annotations

from typing import ClassVar

from naswot.assisted import best_scored, needs_scorer
from naswot.errors import OptionError
from naswot.searcher import Proposal, Scorer, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace


@register_searcher
class NASWOTSearch(Searcher):
    """One trial: the best-scored of n random architectures.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: number of values that are told; none is used.
        scorer: scores untrained architectures.
        n: N; the paper has 10, 100 and 1,000.
    Raises:
        OptionError: if ``n`` is below 1 or there is no scorer.
    """

    name: ClassVar[str] = "naswot_search"
    reference: ClassVar[str] = "Mellor et al., ICML 2021, arXiv:2006.04647"
    multi_objective: ClassVar[bool] = True
    ends = True

    def __init__(
        self, space: SearchSpace, *, seed: int = 0, n_objectives: int = 1, scorer: Scorer | None = None, n: int = 100
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if n < 1:
            raise OptionError(f"expected n of at least 1, but got {n}")
        self.scorer: Scorer = needs_scorer(self.name, scorer, space)
        self._n = n

    def propose(self) -> Proposal | None:
        """The winner; then nothing."""
        if self.n_asked:
            return None
        drawn = [self.draw() for _ in range(self._n)]
        return Proposal(best_scored(drawn, self.scorer, 1)[0])

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Nothing."""

    @property
    def planned(self) -> int:
        """The winner."""
        return 1
