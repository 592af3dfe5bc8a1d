"""The published network around a NAS-Bench-101 cell.

Paper: Ying et al., NAS-Bench-101, ICML 2019, arXiv:1902.09635. Original code: github.com/google-research/nasbench.
Differences: none in the function; images lie as (N, C, H, W), where the original has channels last.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Final

import torch
from torch import Tensor, nn

from naswot.spaces._nasbench101_graph import Cell

N_STACKS: Final = 3
KERNELS: Final = {0: 3, 1: 1}  # kernel size of the convolutions; operation 2 is the pooling
_EPSILON: Final = 1e-5
_MOMENTUM: Final = 1 - 0.997  # the original counts what stays
_TRUNCATION: Final = 0.87962566103423978  # standard deviation of a normal variable cut at two of its own


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int) -> None:
        convolution = nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(c_out, _EPSILON, _MOMENTUM), nn.ReLU(inplace=False))


def vertex_channels(cell: Cell, c_in: int, c_out: int) -> list[int]:
    """Channels of each vertex, input and output included.

    The vertices that feed the output share its channels, the first ones taking one more each where the division leaves
    a remainder; every other inner vertex has as many as the widest it feeds.
    """
    matrix, last = cell.matrix, len(cell.matrix) - 1
    feeding = [vertex for vertex in range(1, last) if matrix[vertex][last]]
    channels = [c_in, *[0] * (last - 1), c_out]
    for number, vertex in enumerate(feeding):
        share, remainder = divmod(c_out, len(feeding))
        channels[vertex] = share + (number < remainder)
    for vertex in range(last - 1, 0, -1):
        if not matrix[vertex][last]:
            channels[vertex] = max(channels[target] for target in range(vertex + 1, last) if matrix[vertex][target])
    return channels


class CellModule(nn.Module):
    """A cell: inner vertices sum what they read and apply their operation, the output concatenates.

    What reads the input does so through a 1x1 convolution of its own; what reads a vertex that is wider by one channel
    takes its first channels.

    Args:
        cell: the graph.
        c_in: channels of the input.
        c_out: channels of the output.
    """

    def __init__(self, cell: Cell, c_in: int, c_out: int) -> None:
        super().__init__()
        matrix, self.last = cell.matrix, len(cell.matrix) - 1
        self.channels = vertex_channels(cell, c_in, c_out)
        self.sources = [
            [source for source in range(1, vertex) if matrix[source][vertex]] for vertex in range(self.last + 1)
        ]
        targets = [vertex for vertex in range(1, self.last + 1) if matrix[0][vertex]]
        self.projections = nn.ModuleDict({str(v): ConvBNReLU(c_in, self.channels[v], 1) for v in targets})
        self.operations = nn.ModuleList(
            _operation(operation, width) for operation, width in zip(cell.operations, self.channels[1:], strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H, W)."""
        vertices = [x]
        for vertex, operation in enumerate(self.operations, start=1):
            width = self.channels[vertex]
            terms = [vertices[source][:, :width] for source in self.sources[vertex]]
            vertices.append(operation(reduce(add, terms + self._projected(x, vertex))))
        feeding = [vertices[source] for source in self.sources[self.last]]
        joined = [torch.cat(feeding, 1) if len(feeding) > 1 else feeding[0]] if feeding else []
        return reduce(add, joined + self._projected(x, self.last))

    def _projected(self, x: Tensor, vertex: int) -> list[Tensor]:
        name = str(vertex)
        return [self.projections[name](x)] if name in self.projections else []


def _operation(operation: int, channels: int) -> nn.Module:
    if operation in KERNELS:
        return ConvBNReLU(channels, channels, KERNELS[operation])
    return nn.MaxPool2d(3, stride=1, padding=1)


class CellNetwork(nn.Module):
    """Stem, three stacks of cells with a pooling between them, linear classifier.

    Args:
        cell: the cell, repeated everywhere.
        n_classes: K.
        in_channels: channels of the images.
        width: channels of stem and first stack; each next stack has twice as many.
        n_cells: cells of each stack.
    """

    def __init__(self, cell: Cell, *, n_classes: int, in_channels: int, width: int, n_cells: int) -> None:
        super().__init__()
        self.stem = ConvBNReLU(in_channels, width, 3)
        layers: list[nn.Module] = []
        channels = width
        for stack in range(N_STACKS):
            after = width << stack
            if stack:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # ceil: as the original pads odd sizes
            for _ in range(n_cells):
                layers.append(CellModule(cell, channels, after))
                channels = after
        self.cells = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, n_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) images to (N, K) logits."""
        logits: Tensor = self.classifier(self.pool(self.cells(self.stem(x))).flatten(1))
        return logits


def count_parameters(cell: Cell, *, n_classes: int, in_channels: int, width: int, n_cells: int) -> int:
    """Parameters P of :class:`CellNetwork`, without building it."""
    stacks = [width << stack for stack in range(N_STACKS)]
    total = _conv_parameters(in_channels, width, 3) + (stacks[-1] + 1) * n_classes
    before = width
    for channels in stacks:
        total += _cell_parameters(cell, before, channels) + (n_cells - 1) * _cell_parameters(cell, channels, channels)
        before = channels
    return total


def _cell_parameters(cell: Cell, c_in: int, c_out: int) -> int:
    channels = vertex_channels(cell, c_in, c_out)
    projected = [width for width, edge in zip(channels, cell.matrix[0], strict=True) if edge]
    inner = [(width, operation) for width, operation in zip(channels[1:], cell.operations, strict=False)]
    return sum(_conv_parameters(c_in, width, 1) for width in projected) + sum(
        _conv_parameters(width, width, KERNELS[operation]) for width, operation in inner if operation in KERNELS
    )


def _conv_parameters(c_in: int, c_out: int, kernel_size: int) -> int:
    return kernel_size**2 * c_in * c_out + 2 * c_out


def _initialise(module: nn.Module) -> None:
    """As the original: convolutions by a truncated normal of variance 1 / fan-in, the classifier by Glorot's rule."""
    if isinstance(module, nn.Conv2d):
        deviation = 1 / math.sqrt(module.weight[0].numel()) / _TRUNCATION
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
