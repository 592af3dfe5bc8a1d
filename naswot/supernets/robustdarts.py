"""Supernets of the four spaces of R-DARTS: that of DARTS with fewer operations on its edges.

Paper: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656.
Original code: github.com/automl/RobustDARTS. Differences: those of ``darts.py``.
"""

from __future__ import annotations

from typing import ClassVar

from naswot.spaces.darts import EDGES, Rows
from naswot.spaces.robustdarts import RobustDARTSS1, RobustDARTSS2, RobustDARTSS3, RobustDARTSS4
from naswot.supernet import register_supernet
from naswot.supernets.darts import DARTSSupernet


@register_supernet("robustdarts_s1")
class RobustDARTSS1Supernet(DARTSSupernet):
    """S1: two operations on each edge, which ones depends on it."""

    options: ClassVar[tuple[Rows, Rows]] = RobustDARTSS1.operations


@register_supernet("robustdarts_s2")
class RobustDARTSS2Supernet(DARTSSupernet):
    """S2: skip connection and separable convolution."""

    options: ClassVar[tuple[Rows, Rows]] = RobustDARTSS2.operations


@register_supernet("robustdarts_s3")
class RobustDARTSS3Supernet(DARTSSupernet):
    """S3: ``none`` beside those of S2; it takes weight from the others and is never derived."""

    options: ClassVar[tuple[Rows, Rows]] = ((("none", *RobustDARTSS3.operations[0][0]),) * len(EDGES),) * 2


@register_supernet("robustdarts_s4")
class RobustDARTSS4Supernet(DARTSSupernet):
    """S4: noise and separable convolution. It draws random numbers in evaluation too."""

    options: ClassVar[tuple[Rows, Rows]] = RobustDARTSS4.operations
