"""A plain chain of stages whose depth, width, kernel and kind of block are searched: for tasks of one's own.

Ours, of well-known blocks: plain convolutions (Simonyan and Zisserman, VGG, ICLR 2015, arXiv:1409.1556), basic residual
blocks (He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385) and inverted residual blocks (Sandler et al.,
MobileNetV2, CVPR 2018, arXiv:1801.04381), all with the ReLU6 and normalisation of ``_mobile_blocks.py``. Small enough
to search in minutes, and made for images of any size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import ClassVar, Final

from torch import Tensor, nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces._chain import Block, Chain
from naswot.spaces._mobile_blocks import MBConv, conv_norm
from naswot.types import Genotype

BLOCKS: Final = ("conv", "res", "mb3", "mb6")
"""Plain convolution, residual block, inverted residual block of expansion 3 and 6."""
STEMS: Final = {"small": (1,), "imagenet": (2, 2)}
"""Strides of the 3x3 convolutions before the first stage."""
_GENES: Final = 4
_FORM: Final = re.compile(r"d(\d+)w(\d+)k(\d+)([a-z]+\d?)", re.ASCII)


@register_space
class MacroChain(SearchSpace):
    """Genes: of each stage its number of blocks, its channels, its kernel and its kind of block.

    The first stage keeps height and width, each later one halves them in its first block.

    Args:
        n_stages: number of stages; the registered space has four.
        depths: options for the number of blocks in a stage.
        widths: options for its channels.
        kernels: options for height and width of its filters, odd.
    Raises:
        OptionError: if options are missing, below 1 or there twice, or a kernel is even.
    Example:
        >>> MacroChain(n_stages=2).parse("d1w32k3conv-d2w64k5mb6")
        (0, 1, 0, 0, 1, 3, 1, 3)
    """

    name: ClassVar[str] = "macro_chain"
    reference: ClassVar[str] = "naswot"

    def __init__(
        self,
        n_stages: int = 4,
        depths: tuple[int, ...] = (1, 2, 3),
        widths: tuple[int, ...] = (16, 32, 48, 64),
        kernels: tuple[int, ...] = (3, 5),
    ) -> None:
        options = (depths, widths, kernels)
        usable = all(given and min(given) >= 1 and len(set(given)) == len(given) for given in options)
        if n_stages < 1 or not usable or not all(kernel % 2 for kernel in kernels):
            raise OptionError(
                "expected at least one stage and, of depths, widths and kernels, different options of at least 1, "
                f"kernels odd, but got {n_stages} stages, {depths}, {widths} and {kernels}"
            )
        self.n_stages = n_stages
        self.options: tuple[tuple[int, ...] | tuple[str, ...], ...] = (*options, BLOCKS)
        self.choices = n_stages * tuple(map(len, self.options))

    def build(
        self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, stem: str = "small", width: float = 1.0
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: option of each decision.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
            stem: ``"small"`` keeps height and width, ``"imagenet"`` divides them by 4 before the first stage.
            width: multiplier of all channels, which are rounded to integers of at least 1.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            ArchitectureError: if the space does not contain ``genotype``.
            OptionError: if a number is out of range, or there is no such stem.
        """
        chain = self.blocks(genotype, n_classes=n_classes, in_channels=in_channels, stem=stem, width=width)
        return nn.Sequential(*(block.build() for block in chain))

    def blocks(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        stem: str = "small",
        width: float = 1.0,
        input_size: int = 32,
    ) -> list[Block]:
        """What :meth:`build` chains for the same arguments, with the shapes met by images of ``input_size`` squared."""
        genotype = self.check(genotype)
        if min(n_classes, in_channels, input_size) < 1 or not width > 0 or stem not in STEMS:
            raise OptionError(
                f"expected n_classes, in_channels and input_size of at least 1, a width above 0 and a stem of "
                f"{' or '.join(STEMS)}, but got {n_classes}, {in_channels}, {input_size}, {width} and {stem!r}"
            )
        chain = Chain(in_channels, input_size)
        first = max(1, round(width * self._values(genotype, 0)[1]))
        for stride in STEMS[stem]:
            chain.add("stem", first, stride, partial(conv_norm, chain.channels, first, 3, stride=stride))
        for stage in range(self.n_stages):
            depth, channels, kernel, kind = self._values(genotype, stage)
            after = max(1, round(width * channels))
            for number in range(depth):
                stride = 2 if stage and not number else 1
                build = partial(_block, kind, chain.channels, after, kernel, stride)
                chain.add(f"{kind}k{kernel}", after, stride, build)
        chain.add("head", n_classes, 1, partial(_head, chain.channels, n_classes))
        return chain.blocks

    def covering(self) -> Iterator[Genotype]:
        """Genotypes that together hold every block of the space: each pair of widths one after the other, in turns."""
        depths, widths, kernels, kinds = self.choices[:_GENES]
        for even, odd, kernel, kind in product(range(widths), range(widths), range(kernels), range(kinds)):
            stages = ((depths - 1, odd if stage % 2 else even, kernel, kind) for stage in range(self.n_stages))
            yield tuple(gene for genes in stages for gene in genes)

    def format(self, genotype: Genotype) -> str:
        """Stages joined by ``-``, such as ``d2w32k3mb6``: two blocks, 32 channels, kernel 3, expansion 6."""
        genotype = self.check(genotype)
        stages = (self._values(genotype, stage) for stage in range(self.n_stages))
        return "-".join(f"d{depth}w{width}k{kernel}{kind}" for depth, width, kernel, kind in stages)

    def parse(self, text: str) -> Genotype:
        """Genotype of a string of :meth:`format`.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        stages = text.split("-")
        if len(stages) != self.n_stages:
            raise ArchitectureError(
                f"{text!r} is no network of {self.name}: expected {self.n_stages} stages joined by '-', "
                f"but got {len(stages)}"
            )
        genes: list[int] = []
        for stage in stages:
            found = _FORM.fullmatch(stage)
            if not found:
                raise ArchitectureError(f"{stage!r} is no stage of {self.name}; expected the form 'd2w32k3mb6'")
            for value, options in zip(found.groups(), self.options, strict=True):
                names = list(map(str, options))
                if value not in names:
                    raise ArchitectureError(f"{value!r} in {stage!r} is no option of {self.name}: expected {names}")
                genes.append(names.index(value))
        return tuple(genes)

    def _values(self, genotype: Genotype, stage: int) -> tuple[int, int, int, str]:
        """Depth, width, kernel and kind of a stage."""
        genes = genotype[_GENES * stage : _GENES * (stage + 1)]
        depth, width, kernel, kind = (options[gene] for gene, options in zip(genes, self.options, strict=True))
        return int(depth), int(width), int(kernel), str(kind)


class Residual(nn.Module):
    """Two convolutions added to the input, which goes through a 1x1 convolution where the shape changes.

    Args:
        before: channels of the input.
        after: channels of the output.
        kernel: height and width of the filters, odd.
        stride: by which height and width are divided.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(before, after, kernel, stride=stride), conv_norm(after, after, kernel, active=False)
        )
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else conv_norm(before, after, 1, stride=stride, active=False)
        self.activation = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        result: Tensor = self.activation(self.layers(x) + self.shortcut(x))
        return result


def _block(kind: str, before: int, after: int, kernel: int, stride: int) -> nn.Module:
    if kind == "conv":
        return conv_norm(before, after, kernel, stride=stride)
    if kind == "res":
        return Residual(before, after, kernel, stride)
    return MBConv(before, after, kernel=kernel, expansion=int(kind[-1]), stride=stride)


def _head(before: int, n_classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, n_classes))
