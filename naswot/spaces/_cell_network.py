"""The network that DARTS, NAS-Bench-301 and the NASNet-like families of NDS put around two cells.

Papers: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055; Radosavovic et al., On
Network Design Spaces for Visual Recognition, ICCV 2019, arXiv:1905.13214. Original codes: github.com/quark0/darts (the
networks that are trained after the search, not the supernet) and github.com/facebookresearch/unnas. Noise is an
operation of Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020,
arXiv:1909.09656. Differences: a factorised reduction takes odd sizes, as in the second code; drop-path works out of
place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from naswot.errors import ArchitectureError, OptionError

STEMS: Final = ("cifar", "imagenet")


class CellPlan(NamedTuple):
    """What a cell computes: node ``i`` is the sum of two edges; nodes 0 and 1 are the outputs of the two cells before.

    Args:
        edges: (operation, input node) of the edges into node 2, 2, 3, 3 and so on.
        concat: nodes whose channels together are the output.
    """

    edges: tuple[tuple[str, int], ...]
    concat: tuple[int, ...]


def loose_ends(edges: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    """Intermediate nodes that no edge reads."""
    read = {source for _, source in edges}
    return tuple(node for node in intermediate_nodes(edges) if node not in read)


def intermediate_nodes(edges: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    """All nodes but the two inputs."""
    return tuple(range(2, 2 + len(edges) // 2))


def read_edges(edges: Any, operations: Sequence[str], n_nodes: int) -> tuple[tuple[str, int], ...]:
    """Edges of a description from outside, checked.

    Raises:
        ArchitectureError: naming the first thing that does not fit.
    """
    if not isinstance(edges, list | tuple) or len(edges) != 2 * n_nodes:
        raise ArchitectureError(f"expected a cell of {2 * n_nodes} (operation, input) pairs, but got {edges!r}")
    for number, edge in enumerate(edges):
        if not isinstance(edge, list | tuple) or len(edge) != 2:
            raise ArchitectureError(f"edge {number}: expected a pair (operation, input), but got {edge!r}")
        operation, source = edge
        if operation not in operations:
            raise ArchitectureError(f"edge {number}: operation {operation!r} is none of {', '.join(operations)}")
        if type(source) is not int or not 0 <= source < 2 + number // 2:
            raise ArchitectureError(f"edge {number}: input {source!r} is no node from 0 to {1 + number // 2}")
    return tuple((operation, source) for operation, source in edges)


class CellNetwork(nn.Module):
    """Stem, cells of which two halve the size and double the channels, pooling, linear classifier.

    Args:
        normal: the cell that keeps height and width.
        reduce: the cell that halves them; it stands after one and two thirds of the network.
        n_classes: K.
        in_channels: channels of the images.
        width: channels of a node of the first cells, an even number.
        n_cells: number of cells.
        stem: ``"cifar"`` (one convolution) or ``"imagenet"`` (three, which divide height and width by 8).
        auxiliary: add a second classifier after the second reduction; in training the network gives both logits. It
            fits images of 32 x 32 (cifar) or 224 x 224 (imagenet).
        drop_prob: probability with which an edge other than an identity is dropped for an image in training; the
            attribute ``drop_prob`` may be changed from epoch to epoch.
    Raises:
        OptionError: if a number or name does not fit.
    """

    def __init__(
        self,
        normal: CellPlan,
        reduce: CellPlan,
        *,
        n_classes: int,
        in_channels: int,
        width: int,
        n_cells: int,
        stem: str,
        auxiliary: bool,
        drop_prob: float,
    ) -> None:
        super().__init__()
        if min(n_classes, in_channels, n_cells) < 1 or width < 2 or width % 2:
            raise OptionError(
                "expected n_classes, in_channels and n_cells of at least 1 and an even width of at least 2, "
                f"but got {n_classes}, {in_channels}, {n_cells}, {width}"
            )
        if stem not in STEMS or not 0.0 <= drop_prob < 1.0:
            raise OptionError(f"expected a stem of {STEMS} and 0 <= drop_prob < 1, but got {stem!r}, {drop_prob}")
        self.drop_prob = drop_prob
        self.stem = cifar_stem(in_channels, width) if stem == "cifar" else _imagenet_stem(in_channels, width)
        before, last = (3 * width, 3 * width) if stem == "cifar" else (width, width)
        halved = stem == "imagenet"  # whether the earlier input of the next cell is twice as high and wide as the later
        reductions = (n_cells // 3, 2 * n_cells // 3)
        self.cells = nn.ModuleList()
        self.auxiliary: nn.Module | None = None
        self.auxiliary_place = reductions[1]
        channels = width
        for place in range(n_cells):
            reduces = place in reductions
            channels *= 2 if reduces else 1
            plan = reduce if reduces else normal
            self.cells.append(_Cell(plan, before, last, channels, reduces=reduces, halved=halved))
            before, last, halved = last, channels * len(plan.concat), reduces
            if auxiliary and place == self.auxiliary_place:
                self.auxiliary = _auxiliary_head(last, n_classes, stem)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, n_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, in_channels, H, W) images to (N, K) logits; in training with a second classifier, to both logits."""
        x = self.stem[0](x)
        before, last = x, self.stem[1](x)
        second: Tensor | None = None
        for place, cell in enumerate(self.cells):
            before, last = last, cell(before, last, self.drop_prob)
            if self.training and self.auxiliary is not None and place == self.auxiliary_place:
                second = self.auxiliary(last)
        logits: Tensor = self.classifier(self.pool(last).flatten(1))
        return logits if second is None else (logits, second)


class _Cell(nn.Module):
    """Two inputs brought to the same shape, nodes that add two edges each, some of them concatenated.

    Args:
        plan: edges and output.
        before: channels of the earlier input.
        last: channels of the later one.
        channels: those of every node.
        reduces: whether edges from the inputs halve height and width.
        halved: whether the earlier input is twice as high and wide as the later one.
    """

    def __init__(self, plan: CellPlan, before: int, last: int, channels: int, *, reduces: bool, halved: bool) -> None:
        super().__init__()
        align = FactorisedReduction(before, channels) if halved else relu_conv_norm(before, channels, 1)
        self.inputs = nn.ModuleList([align, relu_conv_norm(last, channels, 1)])
        self.edges = nn.ModuleList(
            OPERATIONS[operation](channels, 2 if reduces and source < 2 else 1) for operation, source in plan.edges
        )
        self.sources = tuple(source for _, source in plan.edges)
        self.concat = plan.concat

    def forward(self, before: Tensor, last: Tensor, drop_prob: float) -> Tensor:
        """(N, before, H', W') and (N, last, H, W) to (N, C, H / s, W / s), where s is 2 if the cell reduces, else 1."""
        nodes: list[Tensor] = [self.inputs[0](before), self.inputs[1](last)]
        terms: list[Tensor] = []
        for edge, source in zip(self.edges, self.sources, strict=True):
            term = edge(nodes[source])
            if self.training and drop_prob > 0.0 and not isinstance(edge, nn.Identity):
                term = drop_path(term, drop_prob)
            terms.append(term)
            if len(terms) == 2:
                nodes.append(terms[0] + terms[1])
                terms = []
        return torch.cat([nodes[node] for node in self.concat], dim=1)


def drop_path(x: Tensor, probability: float) -> Tensor:
    """(N, C, H, W): zeros for an image with that probability, else scaled so that the mean stays."""
    kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device, dtype=x.dtype) >= probability
    return x / (1.0 - probability) * kept


class _Zero(nn.Module):
    """Zeros that stay connected to the input."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class _Noise(nn.Module):
    """Standard normal numbers, drawn anew each time from the global generator of torch, in evaluation too."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)), of which nothing comes from the input."""
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


class FactorisedReduction(nn.Module):
    """ReLU, then two 1x1 convolutions that read even and odd positions and give half of the channels each."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.convs = nn.ModuleList(nn.Conv2d(before, after // 2, 1, stride=2, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2))."""
        x = self.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        result: Tensor = self.norm(torch.cat([self.convs[0](x), self.convs[1](shifted)], dim=1))
        return result


def relu_conv_norm(before: int, after: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(after))


def _depthwise(channels: int, kernel: int, *, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, one filter for each channel, 1x1 convolution, normalisation."""
    padding = dilation * (kernel // 2)
    filters = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
    return [nn.ReLU(), filters, nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)]


def _separable(channels: int, kernel: int, *, stride: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise separable convolution twice; only the first one strides."""
    first = _depthwise(channels, kernel, stride=stride, dilation=dilation)
    return nn.Sequential(*first, *_depthwise(channels, kernel, stride=1, dilation=dilation))


def _dilated(channels: int, kernel: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(*_depthwise(channels, kernel, stride=stride, dilation=2))


def _row_then_column(channels: int, kernel: int, *, stride: int) -> nn.Sequential:
    """1 x k, then k x 1, each striding along its length."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
        nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False),
        nn.BatchNorm2d(channels),
    )


def _max_pool(kernel: int, stride: int) -> nn.Module:
    return nn.MaxPool2d(kernel, stride, kernel // 2)


OPERATIONS: Final[Mapping[str, Callable[[int, int], nn.Module]]] = {
    "none": lambda c, s: _Zero(s),
    "noise": lambda c, s: _Noise(s),
    "skip_connect": lambda c, s: nn.Identity() if s == 1 else FactorisedReduction(c, c),
    "avg_pool_3x3": lambda c, s: nn.AvgPool2d(3, s, 1, count_include_pad=False),
    "max_pool_3x3": lambda c, s: _max_pool(3, s),
    "max_pool_5x5": lambda c, s: _max_pool(5, s),
    "max_pool_7x7": lambda c, s: _max_pool(7, s),
    "conv_1x1": lambda c, s: relu_conv_norm(c, c, 1, stride=s),
    "conv_3x3": lambda c, s: relu_conv_norm(c, c, 3, stride=s),
    "conv_3x1_1x3": lambda c, s: _row_then_column(c, 3, stride=s),
    "conv_7x1_1x7": lambda c, s: _row_then_column(c, 7, stride=s),
    "sep_conv_3x3": lambda c, s: _separable(c, 3, stride=s),
    "sep_conv_5x5": lambda c, s: _separable(c, 5, stride=s),
    "sep_conv_7x7": lambda c, s: _separable(c, 7, stride=s),
    "dil_conv_3x3": lambda c, s: _dilated(c, 3, stride=s),
    "dil_conv_5x5": lambda c, s: _dilated(c, 5, stride=s),
    "dil_sep_conv_3x3": lambda c, s: _separable(c, 3, stride=s, dilation=2),
}
"""Module of each operation for C channels and a stride; (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""


def cifar_stem(in_channels: int, width: int) -> nn.ModuleList:
    """Both inputs of the first cell are the same."""
    stem = nn.Sequential(nn.Conv2d(in_channels, 3 * width, 3, 1, 1, bias=False), nn.BatchNorm2d(3 * width))
    return nn.ModuleList([stem, nn.Identity()])


def _imagenet_stem(in_channels: int, width: int) -> nn.ModuleList:
    """The earlier input of the first cell is a quarter as high and wide as the images, the later one an eighth."""
    first = nn.Sequential(
        nn.Conv2d(in_channels, width // 2, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width // 2),
        *relu_conv_norm(width // 2, width, 3, stride=2),
    )
    return nn.ModuleList([first, relu_conv_norm(width, width, 3, stride=2)])


def _auxiliary_head(channels: int, n_classes: int, stem: str) -> nn.Sequential:
    """Second classifier; that of ImageNet lacks the last normalisation, as in the original."""
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, 3 if stem == "cifar" else 2, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768) if stem == "cifar" else nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, n_classes),
    )
