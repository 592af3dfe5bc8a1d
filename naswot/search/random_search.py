"""Random search: independent uniform draws.

Paper: Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv:1902.07638;
Bergstra and Bengio, JMLR 2012. The baseline that every other strategy has to beat.
"""

from __future__ import annotations

from typing import ClassVar

from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher


@register_searcher
class RandomSearch(Searcher):
    """Architectures drawn uniformly from the space, with replacement; nothing is learned."""

    name: ClassVar[str] = "random"
    reference: ClassVar[str] = "Li & Talwalkar, UAI 2019, arXiv:1902.07638"
    multi_objective: ClassVar[bool] = True

    def propose(self) -> Proposal:
        """A random architecture."""
        return Proposal(self.draw())

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Nothing."""
