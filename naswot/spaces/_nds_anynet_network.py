"""The networks of the ResNet-like families of Network Design Spaces: stem, stages of equal blocks, classifier.

Paper: Radosavovic et al., ICCV 2019, arXiv:1905.13214. Original code: github.com/facebookresearch/pycls, which lacks
the stem of three convolutions; it is the one that gives the published parameters and operations of ResNeXt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Stage(NamedTuple):
    """One stage.

    Args:
        depth: number of blocks.
        width: channels of their outputs.
        stride: by which the first one divides height and width.
        ratio: channels within a bottleneck block as part of ``width``.
        groups: number of groups of its 3x3 convolution.
    """

    depth: int
    width: int
    stride: int
    ratio: float = 1.0
    groups: int = 1


def any_network(stem: str, block: str, stem_width: int, stages: Sequence[Stage], *, channels: int, k: int) -> nn.Module:
    """Network with the weights drawn as in the original.

    Args:
        stem: a name in :data:`STEMS`.
        block: ``plain``, ``basic`` or ``bottleneck``.
        stem_width: channels that the stem hands on.
        stages: from the first to the last.
        channels: of the images, which are (N, channels, H, W).
        k: number of logits K.
    Returns:
        A model that returns logits, (N, K).
    """
    layers = [*STEMS[stem](channels, stem_width)]
    before = stem_width
    for stage in stages:
        for number in range(stage.depth):
            layers.append(_block(block, before, stage, stage.stride if number == 0 else 1))
            before = stage.width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, k))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
    return network


def _conv_norm(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after)]


def _conv_norm_relu(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [*_conv_norm(before, after, kernel, stride=stride, groups=groups), nn.ReLU(inplace=True)]


def _small_stem(channels: int, width: int) -> list[nn.Module]:
    """Keeps the size."""
    return _conv_norm_relu(channels, width, 3)


def _resnet_stem(channels: int, width: int) -> list[nn.Module]:
    """Divides the size by 4."""
    return [*_conv_norm_relu(channels, width, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)]


def _deep_stem(channels: int, width: int) -> list[nn.Module]:
    """Divides the size by 8."""
    first, second, third = (channels, width // 2), (width // 2, width), (width, width)
    return [layer for pair in (first, second, third) for layer in _conv_norm_relu(*pair, 3, stride=2)]


STEMS = {"small": _small_stem, "resnet": _resnet_stem, "deep": _deep_stem}


class _Residual(nn.Module):
    """A body added to its input, or to a projection of it where the shapes differ; then ReLU."""

    def __init__(self, body: nn.Module, before: int, after: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv_norm(before, after, 1, stride=stride))
        self.body = body
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        result: Tensor = self.relu(self.shortcut(x) + self.body(x))
        return result


def _block(block: str, before: int, stage: Stage, stride: int) -> nn.Module:
    after = stage.width
    if block == "plain":
        return nn.Sequential(*_conv_norm_relu(before, after, 3, stride=stride), *_conv_norm_relu(after, after, 3))
    if block == "basic":
        layers = [*_conv_norm_relu(before, after, 3, stride=stride), *_conv_norm(after, after, 3)]
    else:
        inner = round(after * stage.ratio)
        layers = _conv_norm_relu(before, inner, 1)
        layers += _conv_norm_relu(inner, inner, 3, stride=stride, groups=stage.groups)
        layers += _conv_norm(inner, after, 1)
    return _Residual(nn.Sequential(*layers), before, after, stride)
