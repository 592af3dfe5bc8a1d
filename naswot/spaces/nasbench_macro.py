"""NAS-Bench-Macro: eight layers of three options each, 6,561 MobileNet-like networks.

Paper: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021, arXiv:2103.11922. Original
code: github.com/xiusu/NAS-Bench-Macro. Parameter counts equal the published ones.
"""

from __future__ import annotations

import re
from typing import ClassVar

from torch import Tensor, nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.types import Genotype

_STAGES = (2, 3, 3)
_HEAD = 1280


@register_space
class NASBenchMacro(SearchSpace):
    """Option 0 is an identity, 1 a MobileNetV2 block of kernel 3 and expansion 3, 2 one of kernel 5 and expansion 6.

    Stages of 2, 3 and 3 layers; the first layer of each halves height and width and doubles the channels, where an
    identity becomes a 1x1 convolution with normalisation.

    Example:
        >>> NASBenchMacro().parse("22212220")
        (2, 2, 2, 1, 2, 2, 2, 0)
    """

    name: ClassVar[str] = "nasbench_macro"
    reference: ClassVar[str] = "Su et al., CVPR 2021, arXiv:2103.11922"
    choices: tuple[int, ...] = (3,) * sum(_STAGES)

    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, width: int = 32) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: option of each layer.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
            width: channels of the stem; the stages have 2, 4 and 8 times as many.
        Returns:
            A model that returns logits, (N, K).
        """
        options = self.check(genotype)
        if min(n_classes, in_channels, width) < 1:
            raise OptionError(
                f"expected n_classes, in_channels and width of at least 1, but got {n_classes}, {in_channels}, {width}"
            )
        layers: list[nn.Module] = [_conv_norm(in_channels, width, 3), nn.ReLU(inplace=True)]
        channels = width
        starts = {sum(_STAGES[:stage]) for stage in range(len(_STAGES))}
        for number, option in enumerate(options):
            after = 2 * channels if number in starts else channels
            layers.append(_layer(option, channels, after, stride=2 if number in starts else 1))
            channels = after
        layers += [_conv_norm(channels, _HEAD, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(_HEAD, n_classes))

    def format(self, genotype: Genotype) -> str:
        """Eight digits, as in the official file."""
        return "".join(map(str, self.check(genotype)))

    def parse(self, text: str) -> Genotype:
        """Genotype of eight digits.

        Raises:
            ArchitectureError: if the text is anything else.
        """
        if not re.fullmatch("[0-2]{8}", text):
            raise ArchitectureError(f"{text!r} is no network of nasbench_macro: expected eight digits from 0 to 2")
        return tuple(map(int, text))


class _InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, narrow; added to the input where the shapes agree."""

    def __init__(self, before: int, after: int, *, stride: int, kernel: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * before
        self.conv = nn.Sequential(
            *_conv_norm(before, hidden, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden),
            nn.ReLU(inplace=True),
            *_conv_norm(hidden, after, 1),
        )
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        result: Tensor = self.conv(x)
        return x + result if self.adds else result


def _layer(option: int, before: int, after: int, *, stride: int) -> nn.Module:
    if option == 0:
        return nn.Identity() if stride == 1 else _conv_norm(before, after, 1, stride=stride)
    kernel, expansion = (3, 3) if option == 1 else (5, 6)
    return _InvertedResidual(before, after, stride=stride, kernel=kernel, expansion=expansion)


def _conv_norm(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))
