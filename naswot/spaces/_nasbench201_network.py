"""The published network around a NAS-Bench-201 cell.

Paper: Dong & Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326. Original code: github.com/D-X-Y/AutoDL-Projects.
Differences: an odd height or width is rounded up in both branches of a reduction, where the original fails; a node adds
its edges without a leading zero, so that a single skip edge hands on the very tensor of its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Final

import torch
from torch import Tensor, nn

from naswot.types import Genotype

OPERATIONS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV_1X1, CONV_3X3, AVG_POOL = range(5)
EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source, target) of each position of a genotype; node 0 is the input of a cell, node 3 its output."""

STAGE_FACTORS: Final = (1, 2, 4)
"""Channels of each stage as multiples of the width."""


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution without bias, BatchNorm."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(inplace=False),
            nn.Conv2d(c_in, c_out, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(c_out),
        )


class Zero(nn.Module):
    """Zeros that stay connected to the input, so that a zero gradient flows back."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) zeros."""
        return x.mul(0.0)


def make_edge(operation: int, channels: int) -> nn.Module:
    """Make the module of one edge; input and output are (N, channels, H, W)."""
    if operation == SKIP:
        return nn.Identity()
    if operation == CONV_1X1:
        return ReLUConvBN(channels, channels, 1)
    if operation == CONV_3X3:
        return ReLUConvBN(channels, channels, 3)
    if operation == AVG_POOL:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return Zero()


class Cell(nn.Module):
    """Four nodes, each the sum of its incoming edges; the last one is the output.

    Args:
        genotype: operation of each edge of ``EDGES``.
        channels: C of input and output.
        pruned: build no ``none`` edges.
    """

    def __init__(self, genotype: Genotype, channels: int, *, pruned: bool = False) -> None:
        super().__init__()
        built = [e for e, operation in enumerate(genotype) if not (pruned and operation == NONE)]
        self.edges = nn.ModuleDict({edge_name(e): make_edge(genotype[e], channels) for e in built})
        self._incoming: tuple[tuple[tuple[int, str], ...], ...] = tuple(
            tuple((EDGES[e][0], edge_name(e)) for e in built if EDGES[e][1] == target) for target in (1, 2, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in and out. All edges of a source read the same tensor object."""
        nodes = [x]
        for incoming in self._incoming:
            terms = [self.edges[name](nodes[source]) for source, name in incoming]
            nodes.append(reduce(add, terms) if terms else torch.zeros_like(x))
        return nodes[-1]


def edge_name(edge: int) -> str:
    """Name of an edge as the paper writes it, such as ``2<-1``."""
    source, target = EDGES[edge]
    return f"{target}<-{source}"


class Reduction(nn.Module):
    """Residual block that halves height and width (rounded up) and changes the number of channels."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(c_in, c_out, 3, stride=2)
        self.conv_b = ReLUConvBN(c_out, c_out, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2, ceil_mode=True),  # for even sizes the published one; odd ones fit conv_a's output
            nn.Conv2d(c_in, c_out, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2)); no ReLU after the sum."""
        shortcut: Tensor = self.shortcut(x)
        residual: Tensor = self.conv_b(self.conv_a(x))
        return shortcut + residual


class CellNetwork(nn.Module):
    """Stem, three stages of cells with a reduction between them, linear classifier.

    Args:
        genotype: the cell, repeated everywhere.
        n_classes: K.
        in_channels: channels of the images.
        width: channels of the first stage; the next ones have 2 and 4 times as many.
        n_cells: cells per stage.
        pruned: build no ``none`` edges.
    """

    def __init__(
        self, genotype: Genotype, *, n_classes: int, in_channels: int, width: int, n_cells: int, pruned: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        layers: list[nn.Module] = []
        for factor in STAGE_FACTORS:
            channels = width * factor
            if layers:
                layers.append(Reduction(channels // 2, channels))
            layers += [Cell(genotype, channels, pruned=pruned) for _ in range(n_cells)]
        self.cells = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=False))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) images to (N, K) logits."""
        features = self.pool(self.last(self.cells(self.stem(x))))
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def count_parameters(operations: Sequence[int], *, n_classes: int, in_channels: int, width: int, n_cells: int) -> int:
    """Parameters P of :class:`CellNetwork`, without building it: of the edges, only convolutions have any."""
    widths = [width * factor for factor in STAGE_FACTORS]
    stem = 9 * in_channels * width + 2 * width
    reductions = sum(9 * a * b + 2 * b + 9 * b * b + 2 * b + a * b for a, b in pairwise(widths))
    head = 2 * widths[-1] + (widths[-1] + 1) * n_classes
    edge_1x1, edge_3x3 = (sum(k * c * c + 2 * c for c in widths) for k in (1, 9))
    cells = n_cells * (operations.count(CONV_1X1) * edge_1x1 + operations.count(CONV_3X3) * edge_3x3)
    return stem + reductions + head + cells
