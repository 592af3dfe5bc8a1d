"""The search space: what a genotype means and how to build it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count, product
from typing import ClassVar, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from naswot.errors import ArchitectureError, EmptySpaceError
from naswot.registry import Registry
from naswot.types import Genotype

_TRIES: Final = 100_000  # draws after which a search by rejection ends
_CHECK: Final = 1_000  # failed changes after which it is looked up whether there is a neighbour at all

InputKind = Literal["images", "tokens"]
"""What networks read: images (N, C, H, W), or token ids (N, T)."""


class SearchSpace(ABC):
    """A finite set of architectures; a genotype holds one small integer per decision.

    Subclasses give ``name``, ``choices``, :meth:`build`, :meth:`format` and :meth:`parse`; everything else follows and
    is overridden where a space is constrained.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    choices: tuple[int, ...]
    input_size: ClassVar[int] = 32
    input_kind: ClassVar[InputKind] = "images"

    @abstractmethod
    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch."""

    @abstractmethod
    def format(self, genotype: Genotype) -> str:
        """Canonical string of the architecture; ``parse`` reads it back."""

    @abstractmethod
    def parse(self, text: str) -> Genotype:
        """Genotype of an architecture string.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """

    def example_inputs(
        self,
        n: int,
        *,
        n_classes: int = 10,  # noqa: ARG002  (the vocabulary, where tokens are read)
        in_channels: int = 3,
        generator: torch.Generator,
    ) -> Tensor:
        """Random inputs that networks built with the same numbers can read: here (n, in_channels, H, W) images."""
        return torch.randn(n, in_channels, self.input_size, self.input_size, generator=generator)

    @property
    def size(self) -> int:
        """Number of genotypes if every position is free."""
        return int(np.prod(self.choices, dtype=object))

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether the space contains ``genotype``."""
        fits = len(genotype) == len(self.choices)
        return fits and all(0 <= gene < n for gene, n in zip(genotype, self.choices, strict=True))

    def check(self, genotype: Genotype) -> Genotype:
        """``genotype`` as a tuple of plain integers.

        Raises:
            ArchitectureError: if the space does not contain it.
        """
        plain = tuple(int(gene) for gene in genotype)
        if not self.is_valid(plain):
            raise ArchitectureError(
                f"{plain} is no genotype of {self.name}: expected {len(self.choices)} integers, "
                f"each below its number of options {self.choices}"
            )
        return plain

    def genotypes(self) -> Iterator[Genotype]:
        """All valid genotypes in lexicographic order."""
        return (g for g in product(*(range(n) for n in self.choices)) if self.is_valid(g))

    def canonical(self, genotype: Genotype) -> object:
        """Key shared by isomorphic architectures; the genotype itself where nothing better is known."""
        return self.check(genotype)

    def pruned(self, genotype: Genotype) -> object:
        """Key of what is left without the parts that reach no output or come from no input."""
        return self.canonical(genotype)

    def spellings(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes under which a benchmark may file what it trained of this architecture, its own first."""
        return iter((genotype,))

    def representative(self, genotype: Genotype) -> Genotype:
        """One member of the class of :meth:`pruned`, the same for all its members."""
        return self.check(genotype)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly from the valid ones (by rejection).

        Raises:
            EmptySpaceError: if none of very many draws is valid.
        """
        for _ in range(_TRIES):
            genotype = tuple(int(rng.integers(n)) for n in self.choices)
            if self.is_valid(genotype):
                return genotype
        raise EmptySpaceError(
            f"no valid genotype of {self.name} in {_TRIES} draws: the space is empty or nearly so; "
            "relax its constraint, or override `sample` to draw valid genotypes directly"
        )

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """All valid genotypes that differ in one position."""
        genotype = self.check(genotype)
        changed = (
            (*genotype[:i], option, *genotype[i + 1 :])
            for i, n in enumerate(self.choices)
            for option in range(n)
            if option != genotype[i]
        )
        return [g for g in changed if self.is_valid(g)]

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """A neighbour: one position drawn uniformly among those with a choice, then one of its other options.

        Raises:
            EmptySpaceError: if the genotype has no valid neighbour.
        """
        genotype = self.check(genotype)
        free = [i for i, n in enumerate(self.choices) if n > 1]
        for tries in count():
            if tries % _CHECK == 0 and (not free or (tries and not self.neighbours(genotype))):
                break
            i = free[int(rng.integers(len(free)))]
            option = int(rng.integers(self.choices[i] - 1))
            changed = (*genotype[:i], option + (option >= genotype[i]), *genotype[i + 1 :])
            if self.is_valid(changed):
                return changed
        raise EmptySpaceError(
            f"{genotype} of {self.name} has no valid neighbour: every change of one position leaves the space; "
            "relax its constraint, or override `mutate` to change several positions at once"
        )

    def crossover(self, first: Genotype, second: Genotype, rng: np.random.Generator) -> Genotype:
        """A child that takes each position from either parent with probability one half.

        Raises:
            EmptySpaceError: if none of very many mixtures is valid.
        """
        first, second = self.check(first), self.check(second)
        for _ in range(_TRIES):
            take = rng.random(len(self.choices)) < 0.5
            child = tuple(a if t else b for a, b, t in zip(first, second, take, strict=True))
            if self.is_valid(child):
                return child
        raise EmptySpaceError(
            f"no valid child of {first} and {second} of {self.name} in {_TRIES} draws; "
            "override `crossover` to take positions that belong together from one parent"
        )

    def encode(self, genotype: Genotype) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """One-hot encoding, (sum(choices),) float32."""
        rows = [np.eye(n, dtype=np.float32)[g] for g, n in zip(self.check(genotype), self.choices, strict=True)]
        return np.concatenate(rows)


spaces: Registry[SearchSpace] = Registry("space", "naswot.spaces", "naswot list spaces")


def register_space(cls: type[SearchSpace]) -> type[SearchSpace]:
    """Class decorator: make one instance of the space findable under its ``name``."""
    spaces.register(cls.name, cls())
    return cls


def get_space(name: str) -> SearchSpace:
    """The search space of that name.

    Example:
        >>> get_space("nasbench201").size
        15625
    """
    return spaces.get(name)


def list_spaces(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the installed search spaces."""
    return spaces.names(pattern, without=without)
