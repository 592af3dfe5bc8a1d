"""AREA: regularised evolution whose first population is chosen by score.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647, Algorithm 2; its code is not public. 20 random architectures are
scored, the best 10 are trained and begin the evolution of NAS-Bench-201 (P = 10, S = 3).
"""

from __future__ import annotations

from typing import ClassVar

from naswot.assisted import Assisted, needs_scorer
from naswot.search.regularized_evolution import RegularizedEvolution
from naswot.searcher import Scorer, register_searcher
from naswot.space import SearchSpace


@register_searcher
class AREA(Assisted):
    """Evolution that begins with the best-scored of some random networks.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        scorer: scores untrained architectures.
        scored: architectures from which the first population is chosen.
        population: P.
        sample: S, members of a tournament.
    Raises:
        OptionError: if there is no scorer, or not ``1 <= sample <= population <= scored``.
    """

    name: ClassVar[str] = "area"
    reference: ClassVar[str] = "Mellor et al., ICML 2021, arXiv:2006.04647"
    multi_objective: ClassVar[bool] = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        scorer: Scorer | None = None,
        scored: int = 20,
        population: int = 10,
        sample: int = 3,
    ) -> None:
        evolution = RegularizedEvolution(
            space, seed=seed, n_objectives=n_objectives, population=population, sample=sample
        )
        super().__init__(evolution, needs_scorer(self.name, scorer, space), warm_up=scored, keep=population)
