"""The space of ProxylessNAS: a chain of 21 mobile blocks whose kernel, width and presence are searched.

Paper: Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
arXiv:1812.00332. Original code: github.com/mit-han-lab/proxylessnas. Differences: the widths are those of the search,
24 to 320 channels, of which the released networks have other multiples in each stage; ``stem="small"`` for images of
16 x 16 to 64 x 64 is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Final

from torch import nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces._chain import Block, Chain
from naswot.spaces._mobile_blocks import MBConv, conv_norm, divisible, initialise
from naswot.types import Genotype

OPERATIONS: Final = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", "id")
"""Kernel and expansion of an option; ``id`` leaves the block out."""
IDENTITY: Final = len(OPERATIONS) - 1
_WIDTHS: Final = (24, 40, 80, 96, 192, 320)
_DEPTHS: Final = (4, 4, 4, 4, 4, 1)
_STRIDES: Final = (2, 2, 2, 1, 2, 1)
_STEM, _FIRST, _HEAD = 32, 16, 1280
_STEMS: Final = ("small", "imagenet")
_STAGES: Final = tuple(stage for stage, depth in enumerate(_DEPTHS) for _ in range(depth))
_STARTS: Final = tuple(position == 0 or _STAGES[position - 1] != stage for position, stage in enumerate(_STAGES))


@register_space
class MobileNet(SearchSpace):
    """Options 0 to 5 are mobile blocks of kernel 3, 5 or 7 and expansion 3 or 6, option 6 an identity.

    Stages of 4, 4, 4, 4, 4 and 1 blocks have 24, 40, 80, 96, 192 and 320 channels. The first block of a stage changes
    the shape and cannot be left out.

    Example:
        >>> MobileNet().parse(",".join(["k5e6"] + 20 * ["k3e3"]))[:3]
        (3, 0, 0)
    """

    name: ClassVar[str] = "mobilenet"
    reference: ClassVar[str] = "Cai et al., ProxylessNAS, ICLR 2019, arXiv:1812.00332"
    choices: tuple[int, ...] = tuple(IDENTITY if start else IDENTITY + 1 for start in _STARTS)

    def build(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        stem: str = "small",
        width_multiplier: float = 1.0,
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch as in the original.

        Args:
            genotype: option of each block.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
            stem: ``"imagenet"`` divides height and width by 32 in all, ``"small"`` by 8: stride 1 in the stem and the
                first stage.
            width_multiplier: of all channels, which stay multiples of 8; the last 1,280 only grow.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            ArchitectureError: if the space does not contain ``genotype``.
            OptionError: if a number is below 1, the multiplier is not above 0, or there is no such stem.
        """
        plan = self.blocks(
            genotype, n_classes=n_classes, in_channels=in_channels, stem=stem, width_multiplier=width_multiplier
        )
        return initialise(nn.Sequential(*(block.build() for block in plan)))

    def blocks(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        stem: str = "small",
        width_multiplier: float = 1.0,
        input_size: int = 32,
    ) -> list[Block]:
        """What :meth:`build` chains for the same arguments, with the shapes met by images of ``input_size`` squared.

        Identities do nothing and are left out; the last block holds the head, pooling and classifier.
        """
        _check_build(n_classes, in_channels, stem, width_multiplier, input_size)
        stem_width, first, *widths = (divisible(width * width_multiplier) for width in (_STEM, _FIRST, *_WIDTHS))
        strides = _STRIDES if stem == "imagenet" else (1, *_STRIDES[1:])
        chain = Chain(in_channels, input_size)
        stride = 2 if stem == "imagenet" else 1
        chain.add("stem", stem_width, stride, partial(conv_norm, in_channels, stem_width, 3, stride=stride))
        _add(chain, "k3e1", first, 1)
        for option, stage, start in zip(self.check(genotype), _STAGES, _STARTS, strict=True):
            if option != IDENTITY:
                _add(chain, OPERATIONS[option], widths[stage], strides[stage] if start else 1)
        head = divisible(_HEAD * max(1.0, width_multiplier))
        chain.add(f"head{head}", n_classes, 1, partial(_head, chain.channels, head, n_classes))
        return chain.blocks

    def covering(self) -> Iterator[Genotype]:
        """A few genotypes that together hold every block of the space."""
        return ((option,) * len(self.choices) for option in range(IDENTITY))

    def format(self, genotype: Genotype) -> str:
        """Options joined by commas, such as ``k3e3,k5e6,id,...``; ``k5e6`` is kernel 5 and expansion 6."""
        return ",".join(OPERATIONS[option] for option in self.check(genotype))

    def parse(self, text: str) -> Genotype:
        """Genotype of a string of :meth:`format`.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        names = text.split(",")
        if len(names) != len(self.choices):
            raise ArchitectureError(
                f"{text!r} is no network of {self.name}: expected {len(self.choices)} blocks joined by commas, "
                f"but got {len(names)}"
            )
        for number, (name, start) in enumerate(zip(names, _STARTS, strict=True)):
            if name not in OPERATIONS[: IDENTITY + (not start)]:
                options = ", ".join(OPERATIONS[: IDENTITY + (not start)])
                raise ArchitectureError(f"block {number} of {self.name} is {name!r}, but its options are {options}")
        return tuple(OPERATIONS.index(name) for name in names)


def _check_build(n_classes: int, in_channels: int, stem: str, width_multiplier: float, input_size: int) -> None:
    if min(n_classes, in_channels, input_size) < 1 or not width_multiplier > 0:
        raise OptionError(
            "expected n_classes, in_channels and input_size of at least 1 and a width_multiplier above 0, but got "
            f"{n_classes}, {in_channels}, {input_size} and {width_multiplier}"
        )
    if stem not in _STEMS:
        raise OptionError(f"unknown stem {stem!r}; expected {' or '.join(map(repr, _STEMS))}")


def _add(chain: Chain, operation: str, width: int, stride: int) -> None:
    kernel, expansion = int(operation[1]), int(operation[3])
    build = partial(MBConv, chain.channels, width, kernel=kernel, expansion=expansion, stride=stride)
    chain.add(operation, width, stride, build)


def _head(before: int, width: int, n_classes: int) -> nn.Module:
    return nn.Sequential(
        conv_norm(before, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes)
    )
