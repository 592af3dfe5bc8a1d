"""NATS-Bench, the size search space: five numbers of channels in one fixed network, 32,768 in all.

Paper: Dong et al., NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size, TPAMI 2021,
arXiv:2009.00437. Original code: github.com/D-X-Y/AutoDL-Projects. Parameter counts equal the published ones; the
published operations are the MACs plus K for the bias of the classifier.
Differences: those of ``_nasbench201_network.py``.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from torch import Tensor, nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces._nasbench201_network import Reduction, ReLUConvBN
from naswot.types import Genotype

_CHANNELS: Final = (8, 16, 24, 32, 40, 48, 56, 64)


@register_space
class NATSBenchSSS(SearchSpace):
    """Channels of a cell, a reduction, a cell, a reduction and a cell; those of the first are also the stem's.

    The cell is that of NAS-Bench-201 with the best accuracy on CIFAR-100:
    ``|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|``.

    Example:
        >>> NATSBenchSSS().parse("8:16:24:32:64")
        (0, 1, 2, 3, 7)
    """

    name: ClassVar[str] = "natsbench_sss"
    reference: ClassVar[str] = "Dong et al., NATS-Bench, TPAMI 2021, arXiv:2009.00437"
    choices: tuple[int, ...] = (len(_CHANNELS),) * 5

    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: option of each layer.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
        Returns:
            A model that returns logits, (N, K).
        """
        first, second, third, fourth, fifth = (_CHANNELS[option] for option in self.check(genotype))
        if min(n_classes, in_channels) < 1:
            raise OptionError(f"expected n_classes and in_channels of at least 1, but got {n_classes}, {in_channels}")
        return nn.Sequential(
            nn.Conv2d(in_channels, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            _Cell(first, first),
            Reduction(first, second),
            _Cell(second, third),
            Reduction(third, fourth),
            _Cell(fourth, fifth),
            nn.BatchNorm2d(fifth),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(fifth, n_classes),
        )

    def format(self, genotype: Genotype) -> str:
        """Official string: the numbers of channels, joined by colons."""
        return ":".join(str(_CHANNELS[option]) for option in self.check(genotype))

    def parse(self, text: str) -> Genotype:
        """Genotype of an official string.

        Raises:
            ArchitectureError: if the text is anything else.
        """
        number = f"({'|'.join(map(str, _CHANNELS))})"
        found = re.fullmatch(":".join([number] * len(self.choices)), text)
        if not found:
            raise ArchitectureError(
                f"{text!r} is no network of {self.name}: expected five of {_CHANNELS}, such as '8:16:24:32:64'"
            )
        return tuple(_CHANNELS.index(int(channels)) for channels in found.groups())


class _Cell(nn.Module):
    """The fixed cell; edges from its input change the number of channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv_1_0, self.conv_2_0 = ReLUConvBN(before, after, 3), ReLUConvBN(before, after, 3)
        self.conv_2_1, self.conv_3_1, self.conv_3_2 = (ReLUConvBN(after, after, 3) for _ in range(3))
        self.skip_3_0 = nn.Identity() if before == after else _projection(before, after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H, W)."""
        first = self.conv_1_0(x)
        second = self.conv_2_0(x) + self.conv_2_1(first)
        third: Tensor = self.skip_3_0(x) + self.conv_3_1(first) + self.conv_3_2(second)
        return third


def _projection(before: int, after: int) -> nn.Sequential:
    """A skip to another number of channels, without ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
