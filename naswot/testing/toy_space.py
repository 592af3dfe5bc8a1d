"""A space without meaning and a landscape over it, for tests of search strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from naswot.errors import ArchitectureError
from naswot.seeding import derive_seed, numpy_generator
from naswot.space import SearchSpace
from naswot.types import Genotype


class ToySpace(SearchSpace):
    """Genotypes of these choices; every network is one linear layer on the mean of each channel.

    Not registered, as nobody should find it in a list of spaces.

    Args:
        choices: options by position.
        allowed: rule of validity beside the choices.
    """

    name: ClassVar[str] = "toy"
    reference: ClassVar[str] = "none: for tests"
    input_size: ClassVar[int] = 4

    def __init__(
        self, choices: Sequence[int] = (3, 3, 3, 3, 3), allowed: Callable[[Genotype], bool] = lambda genotype: True
    ) -> None:
        self.choices, self._allowed = tuple(choices), allowed

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether it fits the choices and the rule."""
        return super().is_valid(genotype) and self._allowed(genotype)

    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
        """ReLU units, as many as the first gene says and one more, and a linear layer."""
        return _Toy(in_channels, 1 + self.check(genotype)[0], n_classes)

    def format(self, genotype: Genotype) -> str:
        """``toy:0-2-1``."""
        return "toy:" + "-".join(map(str, self.check(genotype)))

    def parse(self, text: str) -> Genotype:
        """Genotype of such a string.

        Raises:
            ArchitectureError: if it is none.
        """
        kind, _, genes = text.strip().partition(":")
        if kind != "toy" or not all(gene.isdecimal() and gene.isascii() for gene in genes.split("-")):
            raise ArchitectureError(f"expected a string like 'toy:0-2-1', but got {text!r}")
        return self.check(tuple(map(int, genes.split("-"))))


class _Toy(nn.Module):
    def __init__(self, in_channels: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(in_channels, width), nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, K) logits."""
        logits: Tensor = self.head(torch.relu(self.hidden(images.mean(dim=(2, 3)))))
        return logits


def planted(space: SearchSpace, *, seed: int = 0, rugged: float = 0.3) -> Callable[[Genotype], float]:
    """A landscape: each option of each position is worth something, and each genotype has a deviation of its own.

    Args:
        space: any space.
        seed: of the landscape.
        rugged: standard deviation of the deviations, where that of an option's worth is 1.
    """
    rng = numpy_generator(derive_seed(seed, "planted"))
    worth = [rng.normal(size=n) for n in space.choices]

    def value(genotype: Genotype) -> float:
        own = numpy_generator(derive_seed(seed, "planted", *genotype)).normal()
        return float(sum(row[gene] for row, gene in zip(worth, genotype, strict=True)) + rugged * own)

    return value
