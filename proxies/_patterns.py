"""Shared by proxies that count distinct patterns: of units over the images, or of images over the units."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from naswot.calls import ActivationCall
from naswot.kernels import codes
from naswot.observers import Activation
from naswot.scoring import packed_units

_WORD = 64


class UnitPatterns:
    """Set of the distinct patterns of units over N images; ``+`` takes the right operand's into the left one's set.

    Values that were taken in once add nothing, so that calls on the very same tensor are not looked at twice.

    Args:
        call: an activation call; its bits are packed at once.
    """

    def __init__(self, call: ActivationCall) -> None:
        self._n, self._d = call.n, call.n_units
        words = packed_units(call)
        self._table: Any = None
        self._compiled = words is not None
        self._words: Tensor | None = pattern_words(call) if words is None else words

    def __add__(self, other: UnitPatterns) -> UnitPatterns:
        self._take(self)
        self._take(other)
        return self

    def __len__(self) -> int:
        self._take(self)
        return len(self._table)

    def _take(self, other: UnitPatterns) -> None:
        if other._words is None:
            return
        words, other._words = other._words, None
        if not self._compiled:
            self._table = torch.unique(words if self._table is None else torch.cat([self._table, words]), dim=0)
            return
        if self._table is None:
            self._table = importlib.import_module("naswot._patterns").PatternSet(self._n)
        self._table.insert(words.numpy(), other._d)


def pattern_words(call: ActivationCall) -> Tensor:
    """Pattern of each unit over the images by torch alone, 64 images to a word: (D, ceil(N / 64)) int64."""
    bits = codes(call.units(), call.threshold)
    words = torch.zeros(call.n_units, -(-call.n // _WORD), dtype=torch.int64, device=bits.device)
    for i, row in enumerate(bits):
        words[:, i // _WORD] |= row.to(torch.int64) << (i % _WORD)
    return words


def unit_patterns(call: ActivationCall) -> UnitPatterns:
    """Patterns of the units of one call; the very same object for calls on the very same tensor."""
    return call.once(UnitPatterns)


UNIT_PATTERNS = Activation(unit_patterns)
"""Observer whose value is the set of distinct patterns of all units of all activation calls."""


class ImageGroups:
    """Partition of the images into those of equal codes; ``+`` refines it.

    Args:
        labels: (N,) int64, equal where the codes are; from 0.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __add__(self, other: ImageGroups) -> ImageGroups:
        if len(self) == len(self.labels):  # every image by itself: nothing can split further
            return self
        pairs = self.labels * len(other.labels) + other.labels
        return ImageGroups(torch.unique(pairs, return_inverse=True)[1])

    def __len__(self) -> int:
        return int(self.labels.max()) + 1


def _groups_of(call: ActivationCall) -> ImageGroups:
    words = packed_units(call)
    rows = codes(call.units(), call.threshold) if words is None else words.view(torch.int64)
    return ImageGroups(torch.unique(rows, dim=0, return_inverse=True)[1])


def image_groups(call: ActivationCall) -> ImageGroups:
    """Which images share their code in one activation call."""
    return call.once(_groups_of)
