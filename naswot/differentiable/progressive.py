"""What a progressive search needs beside its stages: dropout behind skips that fades, and few of them in the end.

Paper: Chen et al., Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and
Evaluation, ICCV 2019, arXiv:1904.12760 (P-DARTS). Original code: github.com/chenxin061/pdarts, ``train_search.py``.
Differences: where edges that must be taken have nothing but a skip, more of them remain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from naswot.differentiable.plan import Hook, Selection, Stage
from naswot.errors import OptionError
from naswot.supernet import Group, MixedSupernet
from naswot.supernets._edges import set_skip_dropout
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


@dataclass(frozen=True)
class SkipDropoutDecay(Hook):
    """The dropout behind identities fades within each stage: see :func:`skip_dropout`.

    Args:
        rate: of the decay, for each epoch in which the alphas learn.
    """

    rate: float = 0.2

    def before_epoch(self, session: SearchSession) -> None:
        """Set it for this epoch."""
        set_skip_dropout(session.supernet, skip_dropout(session.stage, session.clock.epoch, self.rate))


def skip_dropout(stage: Stage, epoch: int, rate: float = 0.2) -> float:
    """Dropout behind identities in an epoch of a stage.

    From the value of the stage it goes down along a line while only the weights learn; when the alphas learn too, it
    starts there again and decays exponentially.

    Args:
        stage: has the first value, the number of epochs and how many of them are warm-up.
        epoch: of the stage, from 0.
        rate: of the exponential decay.
    """
    if epoch < stage.warmup:
        return stage.skip_dropout * (stage.epochs - epoch - 1) / stage.epochs
    return stage.skip_dropout * math.exp(-rate * (epoch - stage.warmup))


@dataclass(frozen=True)
class RestrictSkips(Selection):
    """At most so many skips in the first kind of cell: the weakest of those taken is struck out, and read off again.

    Args:
        limit: of skips in the normal cell, or in the only kind of cell there is. Published: 2.
    Raises:
        OptionError: if it is negative.
    """

    needs_state: ClassVar[bool] = True
    limit: int = 2

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise OptionError(f"expected a limit of at least 0 skips, but got {self.limit}")

    def select(self, session: SearchSession) -> Genotype:
        """The architecture of the epoch that counts, with fewer skips."""
        session.go_to_result()
        supernet = session.supernet
        strengths = {name: table.clone() for name, table in session.relaxation.expected(supernet).items()}
        group = supernet.operation_groups[0]
        table = strengths[group.name]
        genotype = supernet.derive(strengths)
        while len(taken := skips_taken(supernet, group, genotype)) > self.limit:
            left = [place for place in taken if table[place] > 0.0]
            if not left:
                break  # those that remain are all that their edges have
            table[min(left, key=lambda place: float(table[place]))] = 0.0
            genotype = supernet.derive(strengths)
        return genotype


def skips_taken(supernet: MixedSupernet, group: Group, genotype: Genotype) -> list[tuple[int, int]]:
    """Row and column of each skip of a group that an architecture takes."""
    places = supernet.chosen(genotype)[group.name].nonzero().tolist()
    return [(row, column) for row, column in places if group.options[row][column] == "skip_connect"]
