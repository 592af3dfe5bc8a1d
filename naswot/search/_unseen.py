"""Random architectures that were not tried before."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from naswot.searcher import Searcher
from naswot.space import SearchSpace
from naswot.types import Genotype

_TRIES: Final = 100  # draws, all of them known, after which what is left is listed
_LISTED: Final = 1_000_000  # genotypes that are listed at most


def draw_unseen(searcher: Searcher, seen: Container[Genotype]) -> Genotype | None:
    """The searcher's next draw that is not in ``seen``; None where the space has nothing else."""
    for _ in range(_TRIES):
        genotype = searcher.draw()
        if genotype not in seen:
            return genotype
    if searcher.space.size > _LISTED:
        return None
    left = [genotype for genotype in searcher.space.genotypes() if genotype not in seen]
    return left[int(searcher.rng.integers(len(left)))] if left else None


def is_exhausted(space: SearchSpace, seen: Container[Genotype]) -> bool:
    """Whether a space has nothing but ``seen``; one too large to be listed always has more."""
    return space.size <= _LISTED and all(genotype in seen for genotype in space.genotypes())
