"""The convolutional space of Zoph and Le: layers of searched filters, each reading any earlier ones.

Paper: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578, Sections 3.3
and 4.1. The code was not published. Where the paper leaves it open: maps are padded below and on the right; the
classifier reads averages over height and width; pooling, where asked for, halves the images and all maps so far, as in
the macro search of ENAS (Pham et al., ICML 2018, arXiv:1802.03268).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.types import Genotype

SIZES: Final = (1, 3, 5, 7)
"""Options for the height and for the width of the filters."""
COUNTS: Final = (24, 36, 48, 64)
"""Options for their number."""
STRIDES: Final = (1, 2, 3)
"""Options for the vertical and for the horizontal stride, where searched."""
_KINDS: Final = (("filter_height", SIZES), ("filter_width", SIZES), ("n_filters", COUNTS))
_STRIDE_KINDS: Final = (("stride_height", STRIDES), ("stride_width", STRIDES))
_SKIP: Final = "skip"


@register_space
class LayeredCNN(SearchSpace):
    """Genes, layer by layer: filter height, filter width, number of filters, then a bit for each earlier layer.

    That is the order in which a controller decides. Bit ``j`` of layer ``i`` is 1 where ``i`` reads layer ``j``, from
    ``j = 0`` on. A layer reads the concatenation of these, or the images where all bits are 0. With ``strides`` the
    vertical and the horizontal stride come after the number of filters.

    Args:
        n_layers: L; the registered space has six, at which the search of the paper begins.
        strides: search strides too.
    Raises:
        OptionError: if there is no layer.
    Example:
        >>> space = LayeredCNN(n_layers=3)
        >>> space.parse("3x3x36|1x7x24:0|5x5x64:10")
        (1, 1, 1, 0, 3, 0, 0, 2, 2, 3, 1, 0)
        >>> space.decisions[3:7]
        ('filter_height', 'filter_width', 'n_filters', 'skip')
    """

    name: ClassVar[str] = "layered_cnn"
    reference: ClassVar[str] = "Zoph and Le, ICLR 2017, arXiv:1611.01578"

    def __init__(self, n_layers: int = 6, *, strides: bool = False) -> None:
        if n_layers < 1:
            raise OptionError(f"expected at least one layer, but got {n_layers}")
        self.n_layers = n_layers
        self.kinds = (*_KINDS, *(_STRIDE_KINDS if strides else ()))
        """Name and options of the decisions of a layer, before its skip bits."""
        layers = [(*(kind for kind, _ in self.kinds), *layer * (_SKIP,)) for layer in range(n_layers)]
        self.decisions: tuple[str, ...] = tuple(kind for layer in layers for kind in layer)
        """What each position of a genotype decides: a name of ``kinds``, or ``"skip"``."""
        self.layer_slices: tuple[slice, ...] = tuple(
            slice(start, stop) for start, stop in pairwise(accumulate(map(len, layers), initial=0))
        )
        """The positions of each layer."""
        options = {kind: len(values) for kind, values in self.kinds}
        self.choices = tuple(options.get(kind, 2) for kind in self.decisions)

    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, pool_every: int = 0) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: the layers.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
            pool_every: halve height and width of the images and all maps after every that many layers; 0: never.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            ArchitectureError: if the space does not contain ``genotype``.
            OptionError: if a number is out of range.
        """
        if min(n_classes, in_channels, pool_every + 1) < 1:
            raise OptionError(
                "expected n_classes and in_channels of at least 1 and pool_every of at least 0, but got "
                f"{n_classes}, {in_channels} and {pool_every}"
            )
        layers = [self.values(genotype, layer) for layer in range(self.n_layers)]
        return LayeredNetwork(layers, self.sources(genotype), in_channels, n_classes, pool_every)

    def values(self, genotype: Genotype, layer: int) -> tuple[int, ...]:
        """Filter height, filter width, number of filters and, where searched, both strides of a layer."""
        genes = self.check(genotype)[self.layer_slices[layer]]
        return tuple(options[gene] for gene, (_, options) in zip(genes, self.kinds, strict=False))

    def sources(self, genotype: Genotype) -> tuple[tuple[int, ...], ...]:
        """The earlier layers that each layer reads; none where it reads the images."""
        genotype = self.check(genotype)
        bits = (genotype[positions][len(self.kinds) :] for positions in self.layer_slices)
        return tuple(tuple(source for source, bit in enumerate(layer) if bit) for layer in bits)

    def format(self, genotype: Genotype) -> str:
        """Layers joined by ``|``, such as ``5x7x36:011``: 36 filters, 5 high and 7 wide, that read layers 1 and 2.

        Strides, where searched, follow the filters as in ``5x7x36/2x1:011``.
        """
        genotype = self.check(genotype)
        layers = []
        for layer, positions in enumerate(self.layer_slices):
            height, width, count, *strides = self.values(genotype, layer)
            stride = f"/{strides[0]}x{strides[1]}" if strides else ""
            bits = "".join(map(str, genotype[positions][len(self.kinds) :]))
            layers.append(f"{height}x{width}x{count}{stride}{':' * bool(layer)}{bits}")
        return "|".join(layers)

    def parse(self, text: str) -> Genotype:
        """Genotype of a string of :meth:`format`.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        layers = text.split("|")
        if len(layers) != self.n_layers:
            raise ArchitectureError(
                f"{text!r} is no network of {self.name}: expected {self.n_layers} layers joined by '|', "
                f"but got {len(layers)}"
            )
        return tuple(gene for number, layer in enumerate(layers) for gene in self._genes(number, layer))

    def _genes(self, number: int, text: str) -> list[int]:
        """Genes of one layer of a string."""
        strides = r"/(\d+)x(\d+)" if len(self.kinds) > len(_KINDS) else ""
        skips = f":([01]{{{number}}})" if number else "()"
        found = re.fullmatch(rf"(\d+)x(\d+)x(\d+){strides}{skips}", text, re.ASCII)
        if not found:
            example = "3x3x24" + "/1x1" * bool(strides) + f":{'0' * number}" * bool(number)
            raise ArchitectureError(f"layer {number} of {self.name} is {text!r}; expected the form {example!r}")
        *values, bits = found.groups()
        genes = []
        for value, (kind, options) in zip(values, self.kinds, strict=True):
            if value not in map(str, options):
                raise ArchitectureError(
                    f"{kind} of layer {number} of {self.name} is {value}; expected one of {options}"
                )
            genes.append(options.index(int(value)))
        return [*genes, *map(int, bits)]


class LayeredNetwork(nn.Module):
    """Convolution, normalisation and ReLU in every layer; what no layer reads goes to the classifier.

    Args:
        layers: filter height, filter width, number of filters and, if given, both strides of each layer.
        sources: the layers that each reads; none for the images.
        in_channels: channels of the images.
        n_classes: number of logits K.
        pool_every: halve all maps after every that many layers; 0: never.
    """

    def __init__(
        self,
        layers: Sequence[tuple[int, ...]],
        sources: Sequence[tuple[int, ...]],
        in_channels: int,
        n_classes: int,
        pool_every: int,
    ) -> None:
        super().__init__()
        self.sources, self.pool_every = tuple(sources), pool_every
        read = {source for inputs in sources for source in inputs}
        self.outputs = tuple(layer for layer in range(len(layers)) if layer not in read)
        """Layers that no other reads; the last is always one."""
        counts = [layer[2] for layer in layers]
        self.layers = nn.ModuleList(
            _layer(sum(counts[source] for source in inputs) or in_channels, *layer)
            for layer, inputs in zip(layers, sources, strict=True)
        )
        self.classifier = nn.Linear(sum(counts[layer] for layer in self.outputs), n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        maps: list[Tensor] = []
        for number, (layer, inputs) in enumerate(zip(self.layers, self.sources, strict=True)):
            if self.pool_every and number and number % self.pool_every == 0:
                images, maps = _halved(images), [_halved(feature) for feature in maps]
            maps.append(layer(concatenate([maps[source] for source in inputs]) if inputs else images))
        final = concatenate([maps[layer] for layer in self.outputs])
        logits: Tensor = self.classifier(final.mean((2, 3)))
        return logits


def concatenate(maps: Sequence[Tensor]) -> Tensor:
    """Maps (N, C_i, H_i, W_i) along their channels, padded with zeros below and on the right to the largest of them."""
    height, width = max(x.shape[2] for x in maps), max(x.shape[3] for x in maps)
    return torch.cat([F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2])) for x in maps], dim=1)


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def _layer(before: int, height: int, width: int, count: int, down: int = 1, right: int = 1) -> nn.Sequential:
    padding = (height // 2, width // 2)
    convolution = nn.Conv2d(before, count, (height, width), (down, right), padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(count), nn.ReLU(inplace=True))
