"""The four spaces of R-DARTS, small parts of DARTS in which its search fails; cells and networks are those of DARTS.

Paper: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656.
Original code: github.com/automl/RobustDARTS, ``src/spaces.py``. Differences: those of ``darts.py``; operations of which
no architecture is made, the ``none`` of S3, belong to the supernet alone.
"""

from __future__ import annotations

from typing import ClassVar, Final

from naswot.space import register_space
from naswot.spaces.darts import EDGES, DARTSCells, Rows, genes_of

_REFERENCE: Final = "Zela et al., ICLR 2020, arXiv:1909.09656"
_MAX, _AVERAGE, _SKIP = "max_pool_3x3", "avg_pool_3x3", "skip_connect"
_SEP3, _DIL3, _DIL5 = "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"
_NOISE: Final = "noise"

_S1_NORMAL: Final[Rows] = (
    *((_SKIP, _DIL3), (_SKIP, _DIL5)),
    *((_SKIP, _DIL5), (_SKIP, _SEP3), (_SKIP, _DIL3)),
    *((_MAX, _SKIP), (_SKIP, _SEP3), (_SKIP, _SEP3), (_SKIP, _DIL3)),
    *((_SKIP, _SEP3), (_MAX, _SKIP), (_SKIP, _DIL3), (_DIL3, _DIL5), (_DIL3, _DIL5)),
)
_S1_REDUCE: Final[Rows] = (
    *((_MAX, _AVERAGE), (_MAX, _DIL3)),
    *((_MAX, _AVERAGE), (_MAX, _AVERAGE), (_SKIP, _DIL5)),
    *((_MAX, _AVERAGE), (_MAX, _SEP3), (_SKIP, _DIL3), (_SKIP, _DIL5)),
    *((_MAX, _AVERAGE), (_MAX, _AVERAGE), (_SKIP, _DIL5), (_SKIP, _DIL5), (_SKIP, _DIL5)),
)
"""The two operations of each edge that an iterated search left, one line for each node."""


def _everywhere(*names: str) -> tuple[Rows, Rows]:
    return ((names,) * len(EDGES),) * 2


@register_space
class RobustDARTSS1(DARTSCells):
    """S1: two operations for each edge, others for each of the 28 edges.

    Example:
        >>> RobustDARTSS1().cells((0,) * 24)[0].edges[:2]
        (('skip_connect', 0), ('skip_connect', 1))
    """

    name: ClassVar[str] = "robustdarts_s1"
    reference: ClassVar[str] = _REFERENCE
    choices: tuple[int, ...] = genes_of(2)
    operations: ClassVar[tuple[Rows, Rows]] = (_S1_NORMAL, _S1_REDUCE)


@register_space
class RobustDARTSS2(DARTSCells):
    """S2: skip connection or separable convolution."""

    name: ClassVar[str] = "robustdarts_s2"
    reference: ClassVar[str] = _REFERENCE
    choices: tuple[int, ...] = genes_of(2)
    operations: ClassVar[tuple[Rows, Rows]] = _everywhere(_SKIP, _SEP3)


@register_space
class RobustDARTSS3(DARTSCells):
    """S3: the architectures of S2; its supernet may also weigh ``none``, of which no architecture is made."""

    name: ClassVar[str] = "robustdarts_s3"
    reference: ClassVar[str] = _REFERENCE
    choices: tuple[int, ...] = genes_of(2)
    operations: ClassVar[tuple[Rows, Rows]] = _everywhere(_SKIP, _SEP3)


@register_space
class RobustDARTSS4(DARTSCells):
    """S4: separable convolution or noise, which nothing can be learned from."""

    name: ClassVar[str] = "robustdarts_s4"
    reference: ClassVar[str] = _REFERENCE
    choices: tuple[int, ...] = genes_of(2)
    operations: ClassVar[tuple[Rows, Rows]] = _everywhere(_NOISE, _SEP3)
