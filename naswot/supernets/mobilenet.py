"""Supernet of ProxylessNAS: a chain of 21 blocks, each of which holds all its kernels and expansions side by side.

Paper: Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
arXiv:1812.00332. Original code: github.com/mit-han-lab/proxylessnas. Differences: those of ``spaces/mobilenet.py``; a
residual block adds its input within the weighted sum, which is the same where the weights of a row add up to 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.spaces._chain import Block
from naswot.spaces._mobile_blocks import initialise
from naswot.spaces.mobilenet import IDENTITY, OPERATIONS
from naswot.supernet import Allowed, Group, MixedSupernet, Mixing, Weights, register_supernet
from naswot.supernets._edges import MixedEdge
from naswot.types import Genotype


@register_supernet("mobilenet")
class MobileNetSupernet(MixedSupernet):
    """One group ``blocks`` of 21 rows; the first block of a stage has no identity among its options.

    Args:
        space: MobileNet.
        n_classes: K.
        in_channels: channels of the images.
        allowed: options by group; None: all.
        stem: ``"small"`` divides height and width by 8 in all, ``"imagenet"`` by 32.
        width_multiplier: of all channels, which stay multiples of 8; the last 1,280 only grow. Published: 1.
    """

    def __init__(
        self,
        space: Any,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        allowed: Allowed | None = None,
        stem: str = "small",
        width_multiplier: float = 1.0,
    ) -> None:
        rows = tuple(OPERATIONS[:n] for n in space.choices)
        super().__init__(space, (Group("blocks", rows),), allowed)
        shape = {"n_classes": n_classes, "in_channels": in_channels, "stem": stem, "width_multiplier": width_multiplier}
        chains: list[list[Block]] = [space.blocks((option,) * len(rows), **shape) for option in range(IDENTITY)]
        self.stem = nn.Sequential(*(block.build() for block in chains[0][:2]))
        self.blocks = nn.ModuleList(
            _mixed_block(row, names, [chain[2 + row] for chain in chains], self.allowed("blocks")[row])
            for row, names in enumerate(rows)
        )
        self.head = chains[0][-1].build()
        initialise(self)

    def forward(self, inputs: Tensor, mixing: Mixing) -> Tensor:
        """(N, in_channels, H, W) images to (N, K) logits."""
        x = self.stem(inputs)
        for row, block in enumerate(self.blocks):
            x = block(x, mixing)
            if x is None:
                raise OptionError(
                    f"expected at least one active option in each row of 'blocks', but row {row} has none"
                )
        logits: Tensor = self.head(x)
        return logits

    def derive(self, strengths: Weights) -> Genotype:
        """The strongest option of each block."""
        return tuple(self.takeable(strengths, "blocks").argmax(1).tolist())

    def chosen(self, genotype: Genotype) -> dict[str, Tensor]:
        """One option for each block."""
        return {"blocks": torch.eye(len(OPERATIONS))[list(genotype)]}


def _mixed_block(row: int, names: tuple[str, ...], blocks: list[Block], allowed: Tensor) -> MixedEdge:
    """All options of one block, which all turn the same shape into the same other one."""

    def build(name: str, channels: int, stride: int) -> nn.Module:  # noqa: ARG001
        option = OPERATIONS.index(name)
        return nn.Identity() if option == IDENTITY else blocks[option].build()

    return MixedEdge(("blocks", row), names, build, channels=blocks[0].input_shape[0], allowed=allowed)
