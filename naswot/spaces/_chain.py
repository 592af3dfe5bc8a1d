"""Architectures as chains of blocks, so that what a block costs can be looked up by what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

Shape = tuple[int, ...]
"""Of one image or feature map: channels, height, width."""


class Block(NamedTuple):
    """One link of a chain.

    Args:
        name: tells, with the input shape, what the block computes.
        build: gives an untrained module.
        input_shape: (C, H, W) of what it is given.
    """

    name: str
    build: Callable[[], nn.Module]
    input_shape: Shape

    @property
    def key(self) -> tuple[str, Shape]:
        """Name and input shape, under which a table keeps it."""
        return self.name, self.input_shape


class Chain:
    """Blocks in a row, each given the shape that the one before hands on.

    Args:
        channels: of the images.
        size: their height and width.
    """

    def __init__(self, channels: int, size: int) -> None:
        self.channels, self.size = channels, size
        self.blocks: list[Block] = []

    def add(self, name: str, channels: int, stride: int, build: Callable[[], nn.Module]) -> None:
        """Append a block that gives ``channels`` and divides height and width by ``stride``, rounding up."""
        shape = (self.channels, self.size, self.size)
        self.blocks.append(Block(f"{name}-{channels}s{stride}", build, shape))
        self.channels, self.size = channels, -(-self.size // stride)
