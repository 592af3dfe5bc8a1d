"""The ResNet-like families of Network Design Spaces (NDS): Vanilla, ResNet, ResNeXt-A and ResNeXt-B.

Paper: Radosavovic et al., On Network Design Spaces for Visual Recognition, ICCV 2019, arXiv:1905.13214, Table 1.
Original code: github.com/facebookresearch/pycls; data: github.com/facebookresearch/nds. Parameter counts equal the
published ones. The published operations are the MACs, plus K for the bias of the classifier, plus five for each number
that is normalised.

Vanilla and ResNet were trained on ImageNet in a space of their own, with four stages, other options and a stem of
several widths: ``nds_vanilla_in`` and ``nds_resnet_in``. ResNeXt has the same options on both data sets.

The networks that the authors of NASWOT scored (github.com/BayesWatch/nas-without-training) are others: there the stem
is one for ImageNet with 12 channels, what the data call the stem is one more stage, and the number of groups is taken
for the channels of one group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import nn

from naswot.errors import ArchitectureError, OptionError, unknown_name
from naswot.space import SearchSpace, register_space
from naswot.spaces._nds_anynet_network import Stage, any_network
from naswot.types import Genotype

_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_WIDTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256)
_DEPTHS_IN = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
_WIDTHS_IN = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class Stem(NamedTuple):
    """What comes before the stages.

    Args:
        kind: a name in ``STEMS`` of the networks' module.
        stride: by which it divides height and width.
        widths: number of channels that it hands on, or the options where that is searched.
    """

    kind: str
    stride: int
    widths: tuple[int, ...]


_CIFAR = Stem("small", 1, (16,))


class AnyNet(SearchSpace):
    """Stages of blocks; for each its depth, width and, of bottleneck blocks, their ratio and number of groups.

    The first stage keeps height and width, each later one halves them.
    """

    reference: ClassVar[str] = "Radosavovic et al., ICCV 2019, arXiv:1905.13214"
    block: ClassVar[str]
    n_stages: ClassVar[int] = 3
    options: ClassVar[Mapping[str, tuple[float, ...]]]
    """Of a stage, by the letter that names them in a string: d depth, w width, r ratio, g groups."""
    stems: ClassVar[Mapping[str, Stem]]
    """Trained ones by data set."""

    def __init__(self) -> None:
        widths = next(iter(self.stems.values())).widths
        searched = (("s", widths),) if len(widths) > 1 else ()
        self.decisions: tuple[tuple[str, tuple[float, ...]], ...] = (
            *searched,
            *(self.n_stages * tuple(self.options.items())),
        )
        """Letter and options of each position of a genotype; ``s`` is the width of the stem, where that is searched."""
        self.choices = tuple(len(options) for _, options in self.decisions)

    def build(
        self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, stem: str | None = None
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch as in the original.

        Args:
            genotype: option of each decision.
            n_classes: number of logits K: 10 or, for ImageNet, 1,000.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
            stem: that of the networks trained on ``cifar`` (3 x 32 x 32) or ``imagenet`` (3 x 224 x 224); None: the
                only one, or else ``cifar``.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            UnknownNameError: if the space has no such stem.
            OptionError: if a number is below 1.
        """
        chosen = next(iter(self.stems)) if stem is None else stem
        if chosen not in self.stems:
            raise unknown_name(f"stem of {self.name}", chosen, self.stems)
        if min(n_classes, in_channels) < 1:
            raise OptionError(f"expected n_classes and in_channels of at least 1, but got {n_classes}, {in_channels}")
        values = [options[gene] for gene, (_, options) in zip(self.check(genotype), self.decisions, strict=True)]
        kind, _, widths = self.stems[chosen]
        width = int(values.pop(0)) if len(widths) > 1 else widths[0]
        n, strides = len(self.options), (1,) + (2,) * (self.n_stages - 1)
        stages = [_stage(values[n * number : n * (number + 1)], stride) for number, stride in enumerate(strides)]
        return any_network(kind, self.block, width, stages, channels=in_channels, k=n_classes)

    def format(self, genotype: Genotype) -> str:
        """Stages joined by ``-``, such as ``d2w32`` for two blocks of 32 channels; there is no official string."""
        parts = zip(self.check(genotype), self.decisions, strict=True)
        text = "".join(f"{'-' * (letter == 'd')}{letter}{options[gene]}" for gene, (letter, options) in parts)
        return text.removeprefix("-")

    def parse(self, text: str) -> Genotype:
        """Genotype of a string of :meth:`format`.

        Raises:
            ArchitectureError: if it is none, or a number is no option.
        """
        form = "".join(rf"{'-' * (letter == 'd')}{letter}([0-9.]+)" for letter, _ in self.decisions).removeprefix("-")
        found = re.fullmatch(form, text, re.ASCII)
        if not found:
            raise ArchitectureError(f"{text!r} is no network of {self.name}, such as {self._example!r}")
        genotype = []
        for value, (letter, options) in zip(found.groups(), self.decisions, strict=True):
            names = list(map(str, options))
            if value not in names:
                raise ArchitectureError(f"{text!r} is no network of {self.name}: {letter} is {value}, not of {names}")
            genotype.append(names.index(value))
        return tuple(genotype)

    @property
    def _example(self) -> str:
        return self.format((0,) * len(self.choices))


def _stage(values: list[float], stride: int) -> Stage:
    depth, width, *rest = values
    ratio, groups = rest or (1.0, 1)
    return Stage(int(depth), int(width), stride, ratio, int(groups))


@register_space
class NDSVanilla(AnyNet):
    """Three stages of blocks of two 3x3 convolutions without shortcut; 1,259,712 networks for CIFAR-10."""

    name: ClassVar[str] = "nds_vanilla"
    block: ClassVar[str] = "plain"
    options: ClassVar[Mapping[str, tuple[float, ...]]] = {"d": _DEPTHS, "w": _WIDTHS}
    stems: ClassVar[Mapping[str, Stem]] = {"cifar": _CIFAR}


@register_space
class NDSResNet(AnyNet):
    """Three stages of residual blocks of two 3x3 convolutions; 1,259,712 networks for CIFAR-10.

    Example:
        >>> NDSResNet().format((1, 2, 2, 8, 2, 9))
        'd2w32-d3w128-d3w160'
    """

    name: ClassVar[str] = "nds_resnet"
    block: ClassVar[str] = "basic"
    options: ClassVar[Mapping[str, tuple[float, ...]]] = {"d": _DEPTHS, "w": _WIDTHS}
    stems: ClassVar[Mapping[str, Stem]] = {"cifar": _CIFAR}


@register_space
class NDSVanillaIN(AnyNet):
    """Vanilla for ImageNet: four stages and the width of the stem; 622,080,000 networks."""

    name: ClassVar[str] = "nds_vanilla_in"
    block: ClassVar[str] = "plain"
    n_stages: ClassVar[int] = 4
    options: ClassVar[Mapping[str, tuple[float, ...]]] = {"d": _DEPTHS_IN, "w": _WIDTHS_IN}
    stems: ClassVar[Mapping[str, Stem]] = {"imagenet": Stem("resnet", 4, (16, 32, 64))}


@register_space
class NDSResNetIN(AnyNet):
    """ResNet for ImageNet: four stages and the width of the stem; 622,080,000 networks."""

    name: ClassVar[str] = "nds_resnet_in"
    block: ClassVar[str] = "basic"
    n_stages: ClassVar[int] = 4
    options: ClassVar[Mapping[str, tuple[float, ...]]] = {"d": _DEPTHS_IN, "w": _WIDTHS_IN}
    stems: ClassVar[Mapping[str, Stem]] = {"imagenet": Stem("resnet", 4, (16, 32, 64))}


_RESNEXT_STEMS = {"cifar": _CIFAR, "imagenet": Stem("deep", 8, (64,))}


@register_space
class NDSResNeXtA(AnyNet):
    """Three stages of residual bottleneck blocks, 16 to 256 channels, up to four groups; 11,390,625 networks."""

    name: ClassVar[str] = "nds_resnext_a"
    block: ClassVar[str] = "bottleneck"
    options: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "d": (1, 2, 4, 8, 16),
        "w": (16, 32, 64, 128, 256),
        "r": (0.25, 0.5, 1.0),
        "g": (1, 2, 4),
    }
    stems: ClassVar[Mapping[str, Stem]] = _RESNEXT_STEMS


@register_space
class NDSResNeXtB(AnyNet):
    """Three stages of residual bottleneck blocks, 64 to 1,024 channels, up to 16 groups; 52,734,375 networks."""

    name: ClassVar[str] = "nds_resnext_b"
    block: ClassVar[str] = "bottleneck"
    options: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "d": (1, 2, 4, 8, 16),
        "w": (64, 128, 256, 512, 1024),
        "r": (0.25, 0.5, 1.0),
        "g": (1, 2, 4, 8, 16),
    }
    stems: ClassVar[Mapping[str, Stem]] = _RESNEXT_STEMS
