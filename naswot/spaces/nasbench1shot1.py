"""NAS-Bench-1Shot1: three parts of NAS-Bench-101 that a one-shot model can span.

Paper: Zela, Siems & Hutter, NAS-Bench-1Shot1: Benchmarking and Dissecting One-shot Neural Architecture Search, ICLR
2020, arXiv:2001.10422. Original code: github.com/automl/nasbench-1shot1. Its configuration space has an operation for
each choice block and a set of parents for each block and the output; so have the genotypes here.

The paper counts otherwise. Its 6,240 (space 1) and 363,648 (space 3) add up, over all choices of parents, the
operations of the blocks that anything reads; its 29,160 (space 2) takes all four blocks. Its 2,487, 3,609 and 24,066
without loose ends are what the original generator lists, which misses some graphs and repeats isomorphic ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import ClassVar, Final

from torch import nn

from naswot.errors import ArchitectureError
from naswot.space import SearchSpace, register_space
from naswot.spaces import _nasbench101_graph as graphs
from naswot.spaces._nasbench101_graph import OPERATIONS, Cell, Matrix
from naswot.spaces.nasbench101 import NASBench101
from naswot.types import Genotype

_NASBENCH101: Final = NASBench101()
_ARROW: Final = "<-"
_Parents = tuple[int, ...]


class NASBench1Shot1(SearchSpace):
    """The operation of each choice block, then the parents of each block and of the output that have a choice.

    An option is an index into conv3x3-bn-relu, conv1x1-bn-relu, maxpool3x3, or into the sets of parents in
    lexicographic order. Blocks are numbered from 1; 0 is the input. A block that nothing reads is left out of the cell.
    """

    reference: ClassVar[str] = "Zela, Siems & Hutter, NAS-Bench-1Shot1, ICLR 2020, arXiv:2001.10422"
    n_parents: ClassVar[_Parents]

    def build(
        self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, width: int = 128, n_cells: int = 3
    ) -> nn.Module:
        """Untrained network of the cell in NAS-Bench-101, with the arguments of its ``build``."""
        return _NASBENCH101.build(
            self.to_nasbench101(genotype), n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells
        )

    def to_nasbench101(self, genotype: Genotype) -> Genotype:
        """Genotype of the cell in the space ``nasbench101``."""
        return graphs.embed(self._cell(self.check(genotype)))

    @property
    def n_blocks(self) -> int:
        """Number of choice blocks."""
        return len(self.n_parents) - 1

    def parents(self, genotype: Genotype) -> list[tuple[int, ...]]:
        """Parents of each block, then of the output; block 0 is the input."""
        return _parents(self.n_parents, self.check(genotype)[self.n_blocks :])

    def from_parents(self, operations: Sequence[int], parents: Sequence[tuple[int, ...]]) -> Genotype:
        """Genotype of an operation for each block, and the sorted parents of each block and of the output."""
        chosen = zip(parents, _options(self.n_parents), strict=True)
        return (*operations, *(options.index(found) for found, options in chosen if len(options) > 1))

    def read_blocks(self, genotype: Genotype) -> tuple[int, ...]:
        """Blocks that reach the output; all others are left out of the cell."""
        return _pruned(self.parents(genotype), tuple(range(1, self.n_blocks + 1))).operations

    def format(self, genotype: Genotype) -> str:
        """Operation and parents of each block, and the parents of the output."""
        genotype = self.check(genotype)
        names = [*(OPERATIONS[operation] for operation in genotype[: self.n_blocks]), "output"]
        blocks = zip(names, self.parents(genotype), strict=True)
        return "|".join(f"{name}{_ARROW}{','.join(map(str, parents))}" for name, parents in blocks)

    def parse(self, text: str) -> Genotype:
        """Genotype of such a string.

        Raises:
            ArchitectureError: if it has another form.
        """
        blocks = [block.partition(_ARROW) for block in text.split("|")]
        names, shown = [name for name, _, _ in blocks], [parents for _, _, parents in blocks]
        sets = [[",".join(map(str, option)) for option in options] for options in _options(self.n_parents)]
        fits = len(blocks) == len(sets) and names[-1] == "output" and set(names[:-1]) <= set(OPERATIONS)
        if not fits or any(parents not in options for parents, options in zip(shown, sets, strict=True)):
            counts = ", ".join(map(str, self.n_parents))
            raise ArchitectureError(
                f"{text!r} is no cell of {self.name}: expected {len(sets) - 1} blocks and the output with {counts} "
                f"parents, as in {self.format((0,) * len(self.choices))!r}; operations: {', '.join(OPERATIONS)}"
            )
        operations = [OPERATIONS.index(name) for name in names[:-1]]
        return self.from_parents(operations, [tuple(map(int, parents.split(","))) for parents in shown])

    def canonical(self, genotype: Genotype) -> str:
        """The graph hash of NAS-Bench-101, shared by isomorphic cells."""
        return _NASBENCH101.canonical(self.to_nasbench101(genotype))

    def spellings(self, genotype: Genotype) -> Iterator[Genotype]:
        """The genotype and the representative of its class, under which benchmarks have it."""
        genotype = self.check(genotype)
        return iter((genotype, self.representative(genotype)))

    def representative(self, genotype: Genotype) -> Genotype:
        """The genotype that :meth:`distinct` lists for the same cell."""
        cell, known = self._cell(self.check(genotype)), list(_first_graphs(self.n_parents))
        first = min(
            (known.index(order.matrix), order.operations) for order in graphs.orders(cell) if order.matrix in known
        )
        return self._written(Cell(known[first[0]], first[1]))

    def distinct(self) -> Iterator[Genotype]:
        """One genotype of each cell up to isomorphism: 2,685, 7,773 and 55,854 of the three spaces."""
        return map(self._written, graphs.distinct_cells(_first_graphs(self.n_parents)))

    def _cell(self, genotype: Genotype) -> Cell:
        return _pruned(self.parents(genotype), genotype[: self.n_blocks])

    def _written(self, cell: Cell) -> Genotype:
        """Genotype of a cell whose matrix is one of the first: the operations of its blocks, 0 for those left out."""
        parents, kept = _first_graphs(self.n_parents)[cell.matrix]
        operations = dict(zip(kept, cell.operations, strict=True))
        return (*(operations.get(block, 0) for block in range(1, len(self.n_parents))), *parents)


def _options(n_parents: _Parents) -> list[list[_Parents]]:
    """Sets of parents of each block and the output."""
    return [list(itertools.combinations(range(block), n)) for block, n in enumerate(n_parents, start=1)]


def _choices(n_parents: _Parents) -> tuple[int, ...]:
    sizes = (math.comb(block, n) for block, n in enumerate(n_parents, start=1))
    return (len(OPERATIONS),) * (len(n_parents) - 1) + tuple(size for size in sizes if size > 1)


def _parents(n_parents: _Parents, genes: Genotype) -> list[_Parents]:
    """Parents of each block and the output by the genes of those that have a choice."""
    rest = iter(genes)
    return [options[next(rest) if len(options) > 1 else 0] for options in _options(n_parents)]


def _pruned(parents: list[_Parents], operations: tuple[int, ...]) -> Cell:
    n = len(parents) + 1
    matrix = [[int(target > 0 and source in parents[target - 1]) for target in range(n)] for source in range(n)]
    return graphs.prune(matrix, operations)


@cache
def _first_graphs(n_parents: _Parents) -> dict[Matrix, tuple[Genotype, tuple[int, ...]]]:
    """All matrices of cells, each with the first genes that give it and the blocks that are left in it."""
    found: dict[Matrix, tuple[Genotype, tuple[int, ...]]] = {}
    blocks = tuple(range(1, len(n_parents)))
    for genes in itertools.product(*map(range, _choices(n_parents)[len(blocks) :])):
        matrix, kept = _pruned(_parents(n_parents, genes), blocks)
        found.setdefault(matrix, (genes, kept))
    return found


@register_space
class NASBench1Shot1Space1(NASBench1Shot1):
    """Four blocks; they and the output have 1, 2, 2, 2 and 2 parents.

    Example:
        >>> NASBench1Shot1Space1().format((0, 1, 2, 0, 2, 5, 9))
        'conv3x3-bn-relu<-0|conv1x1-bn-relu<-0,1|maxpool3x3<-1,2|conv3x3-bn-relu<-2,3|output<-3,4'
    """

    name: ClassVar[str] = "nasbench1shot1_1"
    n_parents: ClassVar[_Parents] = (1, 2, 2, 2, 2)
    choices: tuple[int, ...] = _choices(n_parents)


@register_space
class NASBench1Shot1Space2(NASBench1Shot1):
    """Four blocks; they and the output have 1, 1, 2, 2 and 3 parents."""

    name: ClassVar[str] = "nasbench1shot1_2"
    n_parents: ClassVar[_Parents] = (1, 1, 2, 2, 3)
    choices: tuple[int, ...] = _choices(n_parents)


@register_space
class NASBench1Shot1Space3(NASBench1Shot1):
    """Five blocks; they and the output have 1, 1, 1, 2, 2 and 2 parents."""

    name: ClassVar[str] = "nasbench1shot1_3"
    n_parents: ClassVar[_Parents] = (1, 1, 1, 2, 2, 2)
    choices: tuple[int, ...] = _choices(n_parents)
