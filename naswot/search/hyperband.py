"""Hyperband over the length of training.

Paper: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, Hyperband, JMLR 18, 2018, arXiv:1603.06560, Algorithm 1:
runs of successive halving that begin with many architectures trained briefly (s = s_max) and end with few trained fully
(s = 0), each of about the same cost. Differences: R is ``max_epochs`` and the shortest training ``min_epochs``, which
the paper has at 1; epochs are rounded; after s = 0 it begins again at s_max (``rounds`` ends that); what failed never
goes on. The number of architectures is the formula's, ``ceil((s_max + 1) / (s + 1) * eta**s)``: 81, 34, 15, 8, 5 for
R = 81, eta = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from naswot.search._halving import HalvingSearcher, Rung, epoch_levels, rungs
from naswot.searcher import register_searcher
from naswot.space import SearchSpace


@register_searcher
class Hyperband(HalvingSearcher):
    """Successive halving with every trade-off between many architectures and long trainings.

    ``epochs`` of a trial is the whole length of its training; ``parent`` is the trial of the same architecture on the
    rung below, from whose weights it may go on. The rungs of each bracket are ``brackets``.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        min_epochs: epochs of the shortest training at least.
        max_epochs: R, epochs of the longest.
        eta: one of so many goes on, and is trained so many times as long.
        levels: epochs of the rungs, where only some are possible, such as ``(12, 200)`` on NAS-Bench-201.
        rounds: how often all brackets are run; None: without end.
        at_once: brackets that may be open at a time, so that many workers find something to do at the end of a rung.
    Raises:
        OptionError: if an option is out of range.
    """

    name: ClassVar[str] = "hyperband"
    reference: ClassVar[str] = "Li et al., JMLR 2018, arXiv:1603.06560"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        min_epochs: int = 1,
        max_epochs: int = 27,
        eta: int = 3,
        levels: Sequence[int] | None = None,
        rounds: int | None = None,
        at_once: int = 1,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        self.brackets = _brackets(epoch_levels(min_epochs, max_epochs, eta, levels), eta)
        self.begin(self.brackets, rounds, at_once)


def _brackets(levels: Sequence[int], eta: int) -> tuple[tuple[Rung, ...], ...]:
    """Rungs of the brackets s = s_max, ..., 0."""
    n_levels = len(levels)  # s_max + 1
    first = [-(-n_levels * eta**s // (s + 1)) for s in range(n_levels)]  # ceil((s_max + 1) / (s + 1) * eta**s)
    return tuple(rungs(first[s], levels[n_levels - 1 - s :], eta) for s in reversed(range(n_levels)))
