"""The seam to weight sharing: what a supernet must offer so that searches can evaluate with it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn

from naswot.space import SearchSpace
from naswot.types import Genotype


class Supernet(Protocol):
    """One network that holds the weights of all architectures of a space."""

    @property
    def space(self) -> SearchSpace:
        """The space whose architectures it holds."""
        ...

    def activate(self, genotype: Genotype) -> AbstractContextManager[nn.Module]:
        """The sub-network of an architecture, with the shared weights, while the context lasts."""
        ...

    def extract(self, genotype: Genotype) -> nn.Module:
        """A stand-alone copy of the sub-network."""
        ...
