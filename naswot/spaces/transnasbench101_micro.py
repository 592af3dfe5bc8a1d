"""TransNAS-Bench-101, the cell-level space: 4,096 cells of six edges in one fixed network.

Paper: Duan et al., TransNAS-Bench-101: Improving Transferability and Generalizability of Cross-Task Neural Architecture
Search, CVPR 2021, arXiv:2105.11871. Original code: github.com/yawen-d/TransNASBench. Built is the network of the
classification tasks (object, scene, jigsaw): the encoder, pooling and a linear layer; the decoders of the other tasks
are no part of the searched architecture.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import Tensor, nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces._nasbench201_network import EDGES, ReLUConvBN
from naswot.types import Genotype

_NONE, _SKIP, _CONV_1X1, _CONV_3X3 = range(4)
_MODULES = "41414"
"""Modules of two cells each; 4: channels doubled and size halved by the first of them, 1: neither."""


@register_space
class TransNASBench101Micro(SearchSpace):
    """Six operations, one per edge: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2 (target<-source).

    An option is none, skip, 1x1 convolution or 3x3 convolution. Where a cell halves the size, the edges from its input
    do so, a skip as a factorised reduction.

    Example:
        >>> TransNASBench101Micro().format((1, 0, 2, 3, 3, 3))
        '64-41414-1_02_333'
    """

    name: ClassVar[str] = "transnasbench101_micro"
    reference: ClassVar[str] = "Duan et al., TransNAS-Bench-101, CVPR 2021, arXiv:2105.11871"
    choices: tuple[int, ...] = (4,) * len(EDGES)
    input_size: ClassVar[int] = 256

    def build(self, genotype: Genotype, *, n_classes: int = 75, in_channels: int = 3, width: int = 64) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch as in the original.

        Args:
            genotype: the cell.
            n_classes: number of logits K: 75 for objects, 47 for scenes, 1,000 for jigsaws.
            in_channels: channels of the images, which are (N, in_channels, H, W); published: 3 x 256 x 256.
            width: channels before the first module; an even number.
        Returns:
            A model that returns logits, (N, K).
        """
        operations = self.check(genotype)
        if min(n_classes, in_channels) < 1 or width < 2 or width % 2:
            raise OptionError(
                "expected n_classes and in_channels of at least 1 and an even width of at least 2, "
                f"but got {n_classes}, {in_channels}, {width}"
            )
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            ReLUConvBN(width // 2, width, 3, stride=2),
        ]
        channels = width
        for module in _MODULES:
            after, stride = (2 * channels, 2) if module == "4" else (channels, 1)
            layers += [_Cell(operations, channels, after, stride=stride), _Cell(operations, after, after, stride=1)]
            channels = after
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes))
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return network

    def format(self, genotype: Genotype) -> str:
        """Official string: width, modules, and the edges into each node."""
        a, b, c, d, e, f = self.check(genotype)
        return f"64-{_MODULES}-{a}_{b}{c}_{d}{e}{f}"

    def parse(self, text: str) -> Genotype:
        """Genotype of an official string.

        Raises:
            ArchitectureError: if it is no string of this space.
        """
        if not re.fullmatch(f"64-{_MODULES}-[0-3]_[0-3]{{2}}_[0-3]{{3}}", text):
            raise ArchitectureError(
                f"{text!r} is no network of {self.name}: the form is 64-{_MODULES}-a_bc_def with digits from 0 to 3"
            )
        return tuple(int(digit) for digit in text.rpartition("-")[2] if digit != "_")


class _Cell(nn.Module):
    """Four nodes, each the sum of its incoming edges; those from the input change size and channels."""

    def __init__(self, operations: Genotype, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            _edge(operation, before, after, stride) if source == 0 else _edge(operation, after, after, 1)
            for operation, (source, _) in zip(operations, EDGES, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        nodes: dict[int, Tensor] = {0: x}
        for edge, (source, target) in zip(self.edges, EDGES, strict=True):
            term = edge(nodes[source])
            nodes[target] = nodes[target] + term if target in nodes else term
        return nodes[3]


def _edge(operation: int, before: int, after: int, stride: int) -> nn.Module:
    if operation == _NONE:
        return _Zero(before, after, stride)
    if operation == _SKIP:
        return nn.Identity() if stride == 1 and before == after else _FactorisedReduction(before, after, stride)
    return ReLUConvBN(before, after, 1 if operation == _CONV_1X1 else 3, stride=stride)


class _Zero(nn.Module):
    """Zeros; connected to the input where the number of channels stays, as in the original."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.stride = before, after, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        thinned = x[:, :, :: self.stride, :: self.stride]
        if self.before == self.after:
            return thinned.mul(0.0)
        return x.new_zeros(x.shape[0], self.after, *thinned.shape[2:])


class _FactorisedReduction(nn.Module):
    """ReLU, then two 1x1 convolutions that read even and odd positions and give half of the channels each."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        halves = (after // 2, after - after // 2)
        self.convs = nn.ModuleList(nn.Conv2d(before, half, 1, stride=stride, bias=False) for half in halves)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        x = self.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        result: Tensor = self.norm(torch.cat([self.convs[0](x), self.convs[1](shifted)], dim=1))
        return result
