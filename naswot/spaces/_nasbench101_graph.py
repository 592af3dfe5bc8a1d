"""Cells of NAS-Bench-101 as labelled graphs: pruning, the official hash, orders of the vertices, all graphs there are.

Paper: Ying et al., NAS-Bench-101, ICML 2019, arXiv:1902.09635. Original code: github.com/google-research/nasbench.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from hashlib import md5
from itertools import permutations, product
from typing import Final, NamedTuple

from naswot.errors import ArchitectureError
from naswot.types import Genotype

OPERATIONS: Final = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
MAX_VERTICES: Final = 7
MAX_EDGES: Final = 9
LAST: Final = MAX_VERTICES - 1
PAIRS: Final = tuple((source, target) for source in range(LAST) for target in range(source + 1, MAX_VERTICES))
"""(source, target) of each of the 21 edges of a genotype; vertex 0 is the input, vertex 6 the output."""

_BIT: Final = {pair: 1 << (len(PAIRS) - 1 - position) for position, pair in enumerate(PAIRS)}


Matrix = tuple[tuple[int, ...], ...]


class Cell(NamedTuple):
    """A cell without idle vertices.

    Args:
        matrix: n rows of n ones and zeros, upper triangular; row 0 is the input, the last one the output.
        operations: index into ``OPERATIONS`` of each of the n - 2 vertices between them.
    """

    matrix: Matrix
    operations: tuple[int, ...]


def prune(matrix: Sequence[Sequence[int]], operations: Sequence[int]) -> Cell:
    """What is left without vertices that no path from input to output visits, as the official ModelSpec does.

    Args:
        matrix: n >= 2 rows of n ones and zeros, upper triangular.
        operations: one for each of the n - 2 inner vertices.
    Raises:
        ArchitectureError: if no path leads from input to output, or more than 7 vertices or 9 edges are left.
    """
    n = len(matrix)
    fed, useful = {0}, {n - 1}
    for vertex in range(1, n):
        if any(matrix[source][vertex] for source in fed):
            fed.add(vertex)
    for vertex in range(n - 2, -1, -1):
        if any(matrix[vertex][target] for target in useful):
            useful.add(vertex)
    kept = sorted(fed & useful)
    if len(kept) < 2:
        raise ArchitectureError("no path leads from the input of the cell to its output")
    left = tuple(tuple(int(matrix[source][target]) for target in kept) for source in kept)
    n_edges = sum(map(sum, left))
    if len(kept) > MAX_VERTICES or n_edges > MAX_EDGES:
        raise ArchitectureError(
            f"a cell has at most {MAX_VERTICES} vertices and {MAX_EDGES} edges, but without idle ones this has "
            f"{len(kept)} and {n_edges}"
        )
    return Cell(left, tuple(int(operations[vertex - 1]) for vertex in kept[1:-1]))


def embed(cell: Cell) -> Genotype:
    """Genotype of a cell: inner vertices keep their numbers, the output becomes vertex 6, what is unused is 0."""
    return (*_edges(cell.matrix), *cell.operations, *(0,) * (MAX_VERTICES - len(cell.matrix)))


@lru_cache(maxsize=1 << 13)
def _edges(matrix: Matrix) -> tuple[int, ...]:
    n = len(matrix)
    places = [*range(n - 1), LAST]
    present = {(places[source], places[target]) for source in range(n) for target in range(n) if matrix[source][target]}
    return tuple(int(pair in present) for pair in PAIRS)


def cell_of(genotype: Genotype, n_inner: int) -> Cell:
    """The cell that ``embed`` turns into ``genotype``, of that many inner vertices."""
    present = {pair for pair, gene in zip(PAIRS, genotype, strict=False) if gene}
    places = [*range(n_inner + 1), LAST]
    matrix = tuple(tuple(int((source, target) in present) for target in places) for source in places)
    return Cell(matrix, genotype[len(PAIRS) : len(PAIRS) + n_inner])


def graph_hash(cell: Cell) -> str:
    """The official ``module_hash``: 32 hexadecimal digits, the same for isomorphic cells and for no others.

    Each vertex begins with the hash of (edges out, edges in, label), where inputs are labelled -1 and outputs -2; n
    times, each takes in the sorted hashes of those it reads and of those that read it; the sorted result is hashed.
    """
    around, labels = _neighbours(cell.matrix), (-1, *cell.operations, -2)
    degrees = [(len(behind), len(before)) for before, behind in around]
    hashes = [_digest(str((*pair, label))) for pair, label in zip(degrees, labels, strict=True)]
    for _ in around:
        hashes = [
            _digest(f"{_sorted(hashes, before)}|{_sorted(hashes, behind)}|{own}")
            for (before, behind), own in zip(around, hashes, strict=True)
        ]
    return _digest(str(sorted(hashes)))


@lru_cache(maxsize=4096)
def _neighbours(matrix: Matrix) -> tuple[tuple[list[int], list[int]], ...]:
    """For each vertex those it reads and those that read it."""
    read = [[source for source, edge in enumerate(column) if edge] for column in zip(*matrix, strict=True)]
    return tuple(zip(read, ([target for target, edge in enumerate(row) if edge] for row in matrix), strict=True))


def _digest(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def _sorted(hashes: list[str], vertices: list[int]) -> str:
    return "".join(sorted([hashes[vertex] for vertex in vertices]))


def orders(cell: Cell) -> Iterator[Cell]:
    """The same cell with its inner vertices in every order that leaves the matrix upper triangular, its own first.

    Cells whose inner vertices are alike may come more than once.
    """
    for inner, matrix in _reordered(cell.matrix):
        yield Cell(matrix, tuple(cell.operations[vertex - 1] for vertex in inner))


@lru_cache(maxsize=1024)
def _reordered(matrix: Matrix) -> list[tuple[tuple[int, ...], Matrix]]:
    """Each such order of the inner vertices, with the matrix in that order."""
    found, last = [], len(matrix) - 1
    edges = [(s, t) for s in range(1, last) for t in range(s + 1, last) if matrix[s][t]]
    for inner in permutations(range(1, last)):
        place = {vertex: number for number, vertex in enumerate(inner)}
        if all(place[source] < place[target] for source, target in edges):
            order = (0, *inner, last)
            found.append((inner, tuple(tuple(matrix[source][target] for target in order) for source in order)))
    return found


def distinct_cells(matrices: Iterable[Matrix]) -> Iterator[Cell]:
    """One cell of each class of isomorphic ones with these matrices, the first that comes.

    Operations are counted up for each matrix, the last vertex fastest; matrices that only order the vertices of an
    earlier one otherwise are passed over.
    """
    known: set[Matrix] = set()
    for matrix in matrices:
        if matrix in known:
            continue
        found = _reordered(matrix)
        known.update(moved for _, moved in found)
        turns = [[vertex - 1 for vertex in inner] for inner, moved in found if moved == matrix][1:]
        for operations in product(range(len(OPERATIONS)), repeat=len(matrix) - 2):
            if all(tuple([operations[vertex] for vertex in turn]) >= operations for turn in turns):
                yield Cell(matrix, operations)


def trained_cells() -> Iterator[Cell]:
    """The 423,624 cells of the benchmark, their vertices in the order in which they were trained.

    The authors count up the number of vertices, then the matrix as a binary number that begins with its last column
    and, in a column, with the last row.
    """
    matrices = [cell_of(edges_of(code), n_inner).matrix for code, n_inner in inner_vertices().items()]
    return distinct_cells(sorted(matrices, key=lambda matrix: (len(matrix), _reversed(matrix))))


def _reversed(matrix: Matrix) -> list[tuple[int, ...]]:
    return [column[::-1] for column in zip(*matrix, strict=True)][::-1]


def edge_code(genotype: Genotype) -> int:
    """The 21 edges as one number, the first edge the highest bit."""
    return sum(bit for bit, gene in zip(_BIT.values(), genotype, strict=False) if gene)


def edges_of(code: int) -> tuple[int, ...]:
    """The 21 edges of a genotype with that code."""
    return tuple(code >> bit & 1 for bit in range(len(PAIRS) - 1, -1, -1))


@cache
def inner_vertices() -> dict[int, int]:
    """Number of inner vertices by :func:`edge_code`, of all graphs with at most 9 edges and no idle vertex, sorted."""
    found = {code: k for k in range(MAX_VERTICES - 1) for code in _codes(k)}
    return dict(sorted(found.items()))


def _codes(n_inner: int) -> Iterator[int]:
    """Codes of all graphs of that many inner vertices; the sources of each vertex are the bits of a mask."""
    masks: list[tuple[tuple[int, ...], int]] = [((), 0)]
    for vertex in range(1, n_inner + 2):
        room = MAX_EDGES - (n_inner + 1 - vertex)  # every later vertex needs an edge
        masks = [
            ((*sources, mask), n_edges + mask.bit_count())
            for sources, n_edges in masks
            for mask in range(1, 1 << vertex)
            if n_edges + mask.bit_count() <= room
        ]
    places = [*range(1, n_inner + 1), LAST]
    everyone = (1 << (n_inner + 1)) - 1
    for sources, _ in masks:
        read = 0
        for mask in sources:
            read |= mask
        if read == everyone:
            yield sum(
                _BIT[source, target]
                for target, mask in zip(places, sources, strict=True)
                for source in range(target if target < LAST else n_inner + 1)
                if mask >> source & 1
            )
