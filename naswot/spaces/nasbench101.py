"""NAS-Bench-101: cells of up to seven vertices and nine edges with three operations, 423,624 up to isomorphism.

Paper: Ying et al., NAS-Bench-101: Towards Reproducible Neural Architecture Search, ICML 2019, arXiv:1902.09635.
Original code: github.com/google-research/nasbench. Parameter counts and graph hashes equal the published ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, product
from typing import ClassVar, Final, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch import nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces import _nasbench101_graph as graphs
from naswot.spaces._nasbench101_graph import LAST, MAX_VERTICES, OPERATIONS, PAIRS, Cell
from naswot.spaces._nasbench101_network import CellNetwork, count_parameters
from naswot.types import Genotype

_N_EDGES: Final = len(PAIRS)
_FORM: Final = "edges row by row, a colon, operations, as in '101101:conv3x3-bn-relu,maxpool3x3'"
_NASLIB: Final = {2: 2, 3: 1, 4: 0}  # NASLib's number of an operation: ours


@register_space
class NASBench101(SearchSpace):
    """21 edges of a 7x7 upper triangle, row by row, then the operations of vertices 1 to 5.

    Vertex 0 is the input and vertex 6 the output. A smaller cell fills vertices 1, 2, ... and leaves those before the
    output without edges and with operation 0, so that every published cell, which has no idle vertex, is written in
    one way. 1,293,208 genotypes are valid: at most 9 edges, each vertex on a path from input to output or unused at
    the end. They are 423,624 cells up to the order of their vertices, which :meth:`canonical` tells apart.

    A change of one gene never changes the number of vertices, as that takes two edges.

    Example:
        >>> NASBench101().format((1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, *[0] * 10, 2, 0, 0, 0, 0))
        '111:maxpool3x3'
    """

    name: ClassVar[str] = "nasbench101"
    reference: ClassVar[str] = "Ying et al., NAS-Bench-101, ICML 2019, arXiv:1902.09635"
    choices: tuple[int, ...] = (2,) * _N_EDGES + (len(OPERATIONS),) * (MAX_VERTICES - 2)

    def build(
        self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, width: int = 128, n_cells: int = 3
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: the cell.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
            width: channels of the first stack, at least 5; the next two have 2 and 4 times as many.
            n_cells: cells per stack.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            ArchitectureError: if the space does not contain ``genotype``.
            OptionError: if a number is below 1, or the width below 5.
        """
        cell = self.cell(genotype)
        _check_numbers(n_classes, in_channels, width, n_cells)
        return CellNetwork(cell, n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells)

    def n_parameters(
        self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3, width: int = 128, n_cells: int = 3
    ) -> int:
        """Parameters P of what :meth:`build` gives for the same arguments, without building it."""
        cell = self.cell(genotype)
        _check_numbers(n_classes, in_channels, width, n_cells)
        return count_parameters(cell, n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells)

    def cell(self, genotype: Genotype) -> Cell:
        """Adjacency matrix and operations of the published cell, without unused vertices."""
        genotype = self.check(genotype)
        return graphs.cell_of(genotype, graphs.inner_vertices()[graphs.edge_code(genotype)])

    def from_matrix(self, matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> Genotype:
        """Genotype of an official specification.

        Args:
            matrix: n rows of n ones and zeros, upper triangular; any n >= 2. Idle vertices are left out.
            operations: n names, the first ``input``, the last ``output``.
        Raises:
            ArchitectureError: if that is no cell of the space.
        """
        shown = f"{[list(row) for row in matrix]} with {list(operations)}"
        if len(operations) < 2 or (operations[0], operations[-1]) != ("input", "output"):
            _refuse(shown, "the operations should begin with 'input' and end with 'output'")
        for operation in operations[1:-1]:
            if operation not in OPERATIONS:
                _refuse(shown, f"unknown operation {operation!r}; there are {', '.join(OPERATIONS)}")
        return _embed(shown, matrix, [OPERATIONS.index(operation) for operation in operations[1:-1]])

    def format(self, genotype: Genotype) -> str:
        """Upper triangle of the published cell's matrix, row by row, a colon and its operations."""
        matrix, operations = self.cell(genotype)
        edges = "".join(str(edge) for number, row in enumerate(matrix) for edge in row[number + 1 :])
        return f"{edges}:{','.join(OPERATIONS[operation] for operation in operations)}"

    def parse(self, text: str) -> Genotype:
        """Genotype of such a string, or of NASLib's: a tuple of the whole matrix, row by row, and n numbers.

        Idle vertices are left out. NASLib numbers input, output, maxpool3x3, conv1x1 and conv3x3 from 0 to 4.

        Raises:
            ArchitectureError: naming what does not fit.
        """
        if re.fullmatch(r"\(?\d+(, ?\d+)+\)?", text):
            return _from_naslib(text)
        edges, colon, names = text.partition(":")
        operations = names.split(",") if names else []
        n = len(operations) + 2
        if not colon or not re.fullmatch(f"[01]{{{n * (n - 1) // 2}}}", edges):
            _refuse(repr(text), f"{len(operations)} operations need {n * (n - 1) // 2} edges (the form is {_FORM})")
        bits = iter(edges)
        matrix = [[int(next(bits)) if target > source else 0 for target in range(n)] for source in range(n)]
        return self.from_matrix(matrix, ["input", *operations, "output"])

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether ``genotype`` is a cell as written above: connected, at most 9 edges, unused vertices last."""
        if not super().is_valid(genotype):
            return False
        n_inner = graphs.inner_vertices().get(graphs.edge_code(genotype))
        return n_inner is not None and not any(genotype[_N_EDGES + n_inner :])

    def genotypes(self) -> Iterator[Genotype]:
        """All 1,293,208 valid genotypes in lexicographic order."""
        for code, n_inner in graphs.inner_vertices().items():
            edges = graphs.edges_of(code)
            for operations in product(range(len(OPERATIONS)), repeat=n_inner):
                yield (*edges, *operations, *(0,) * (LAST - 1 - n_inner))

    def canonical(self, genotype: Genotype) -> str:
        """The official ``module_hash``, shared by isomorphic cells."""
        return graphs.graph_hash(self.cell(genotype))

    def spellings(self, genotype: Genotype) -> Iterator[Genotype]:
        """The cell with its vertices in every order; the benchmark trained one of them.

        Their networks differ at most in which vertices get one channel more.
        """
        return map(graphs.embed, graphs.orders(self.cell(genotype)))

    def representative(self, genotype: Genotype) -> Genotype:
        """Lexicographically first genotype of the same :meth:`canonical` class."""
        return min(self.spellings(genotype))

    def published(self) -> NDArray[np.uint8]:
        """The 423,624 trained cells as (423624, 26) genes, in the order of their graph hashes.

        That is the order of the official files. The first call takes most of a minute.
        """
        return _published()

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly from the valid ones."""
        codes, ends = _cumulated()
        code = int(codes[np.searchsorted(ends, rng.integers(ends[-1]), side="right")])
        n_inner = graphs.inner_vertices()[code]
        operations = rng.integers(len(OPERATIONS), size=n_inner).tolist()
        return (*graphs.edges_of(code), *operations, *(0,) * (LAST - 1 - n_inner))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """A neighbour, as in every space; the cell without inner vertices has none and becomes any other."""
        if self.cell(genotype).operations:
            return super().mutate(genotype, rng)
        return self.sample(rng)


@cache
def _cumulated() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edge codes, and the number of genotypes up to and with each."""
    known = graphs.inner_vertices()
    return np.array(list(known)), np.array(list(accumulate(len(OPERATIONS) ** n_inner for n_inner in known.values())))


@cache
def _published() -> NDArray[np.uint8]:
    cells = sorted((graphs.graph_hash(cell), bytes(graphs.embed(cell))) for cell in graphs.trained_cells())
    genes = np.frombuffer(b"".join(genes for _, genes in cells), dtype=np.uint8)
    return genes.reshape(len(cells), -1)


def _embed(shown: str, matrix: Sequence[Sequence[int]], operations: Sequence[int]) -> Genotype:
    n = len(operations) + 2
    if len(matrix) != n or any(len(row) != n for row in matrix):
        _refuse(shown, f"{n} vertices need a matrix of {n} rows of {n} numbers")
    for source, row in enumerate(matrix):
        for target, edge in enumerate(row):
            if edge not in ((0, 1) if target > source else (0,)):
                _refuse(shown, f"entry {edge!r} of row {source}, column {target}: a matrix is 0 or 1, upper triangular")
    try:
        return graphs.embed(graphs.prune(matrix, operations))
    except ArchitectureError as error:
        _refuse(shown, str(error))


def _check_numbers(n_classes: int, in_channels: int, width: int, n_cells: int) -> None:
    if min(n_classes, in_channels, n_cells) < 1 or width < MAX_VERTICES - 2:
        raise OptionError(
            "expected n_classes, in_channels and n_cells of at least 1 and a width of at least 5, one channel for each "
            f"inner vertex, but got {n_classes}, {in_channels}, {n_cells} and {width}"
        )


def _from_naslib(text: str) -> Genotype:
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    n = next((n for n in range(2, MAX_VERTICES + 1) if n * n + n == len(numbers)), None)
    if n is None:
        _refuse(repr(text), f"it has {len(numbers)} numbers, but n vertices need n * n + n, with n from 2 to 7")
    first, *inner, last = numbers[n * n :]
    if (first, last) != (0, 1) or any(number not in _NASLIB for number in inner):
        _refuse(repr(text), "its last n numbers should be 0 (input), then 2, 3 or 4 (operations), and 1 (output)")
    matrix = [numbers[row * n : (row + 1) * n] for row in range(n)]
    return _embed(repr(text), matrix, [_NASLIB[number] for number in inner])


def _refuse(shown: str, why: str) -> NoReturn:
    raise ArchitectureError(f"{shown} is no cell of nasbench101: {why}")
