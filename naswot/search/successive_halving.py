"""Successive halving over the length of training.

Paper: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
arXiv:1502.07943, in the form that Hyperband runs it (Li et al., JMLR 18, 2018, arXiv:1603.06560, Algorithm 1): of n
architectures trained for r epochs the best n / eta are trained for r * eta epochs, and so on. Differences: after the
last rung a new run begins with new architectures (``rounds`` ends that), and what failed never goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from naswot.errors import OptionError
from naswot.search._halving import HalvingSearcher, epoch_levels, rungs
from naswot.searcher import register_searcher
from naswot.space import SearchSpace


@register_searcher
class SuccessiveHalving(HalvingSearcher):
    """Many architectures briefly, the best of them longer, the best of those longer still.

    ``epochs`` of a trial is the whole length of its training; ``parent`` is the trial of the same architecture on the
    rung below, from whose weights it may go on.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        n: architectures of the first rung.
        min_epochs: epochs of the first rung at least.
        max_epochs: epochs of the last rung.
        eta: one of so many goes on, and is trained so many times as long.
        levels: epochs of the rungs, where only some are possible, such as ``(12, 200)`` on NAS-Bench-201.
        rounds: runs from new architectures; None: without end.
        at_once: runs that may be open at a time, so that many workers find something to do at the end of a rung.
    Raises:
        OptionError: if ``n`` leaves nothing for the last rung, or an option is out of range.
    """

    name: ClassVar[str] = "successive_halving"
    reference: ClassVar[str] = "Jamieson & Talwalkar, AISTATS 2016, arXiv:1502.07943"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        n: int = 27,
        min_epochs: int = 1,
        max_epochs: int = 27,
        eta: int = 3,
        levels: Sequence[int] | None = None,
        rounds: int | None = None,
        at_once: int = 1,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        self.plan = rungs(n, epoch_levels(min_epochs, max_epochs, eta, levels), eta)
        if self.plan[-1].n < 1:
            raise OptionError(
                f"expected n of at least {eta ** (len(self.plan) - 1)}, so that one of {eta} can go on from each of "
                f"{len(self.plan)} rungs, but got {n}"
            )
        self.begin((self.plan,), rounds, at_once)
