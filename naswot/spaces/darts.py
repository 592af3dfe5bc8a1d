"""The DARTS space: two cells of four nodes, seven operations, 10^18 architectures; NAS-Bench-301 is about it.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055. Original code:
github.com/quark0/darts. Built is the network that is trained after the search. Differences: those of
``_cell_network.py``; the edges of a node are ordered by their inputs. Spaces of the same cells with other operations
are subclasses of :class:`DARTSCells`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import combinations
from typing import Any, ClassVar, Final

from torch import nn

from naswot.errors import ArchitectureError
from naswot.space import SearchSpace, register_space
from naswot.spaces._cell_network import CellNetwork, CellPlan, read_edges
from naswot.types import Genotype

OPERATIONS: Final = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
_N_NODES: Final = 4
_NODES: Final = tuple(range(2, 2 + _N_NODES))
_PAIRS: Final = {node: tuple(combinations(range(node), 2)) for node in _NODES}
_CELLS: Final = ("normal", "reduce")
EDGES: Final = tuple((source, node) for node in _NODES for source in range(node))
"""(source, node) of all 14 edges that a cell may have; nodes 0 and 1 are the outputs of the two cells before."""

Rows = tuple[tuple[str, ...], ...]
"""Names of the operations of each of ``EDGES``."""


def genes_of(n_operations: int) -> tuple[int, ...]:
    """Number of options of each gene where every edge has that many operations."""
    return 2 * tuple(n for node in _NODES for n in (len(_PAIRS[node]), n_operations, n_operations))


class DARTSCells(SearchSpace):
    """Genes: of each node of the normal, then of the reduction cell, its two inputs and the operation on each.

    The inputs of node ``i`` are one of the pairs of different nodes below ``i``, in lexicographic order, so that no two
    genotypes differ by the order of edges only. Nodes 0 and 1 are the outputs of the two cells before; all others are
    concatenated. Subclasses give ``operations`` and ``choices``.
    """

    operations: ClassVar[tuple[Rows, Rows]]
    """Of each edge of the normal and of the reduction cell, the same number of them everywhere."""

    def build(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        width: int = 36,
        n_cells: int = 20,
        stem: str = "cifar",
        auxiliary: bool = False,
        drop_prob: float = 0.0,
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Published: 20 cells of width 36 on CIFAR-10 with a second classifier and drop-path up to 0.2; 14 cells of width
        48, ``stem="imagenet"`` and ``n_classes=1000`` on ImageNet; 8 cells of width 32 in NAS-Bench-301.

        Args:
            genotype: the cells.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W).
            width: channels of a node of the first cells, an even number.
            n_cells: number of cells; two of them are reductions.
            stem: ``"cifar"`` for images of 32 x 32, ``"imagenet"`` for 224 x 224.
            auxiliary: add a second classifier, which gives its logits in training only.
            drop_prob: drop-path in training.
        Returns:
            A model that returns logits, (N, K).
        """
        normal, reduce = self.cells(genotype)
        return CellNetwork(
            normal,
            reduce,
            n_classes=n_classes,
            in_channels=in_channels,
            width=width,
            n_cells=n_cells,
            stem=stem,
            auxiliary=auxiliary,
            drop_prob=drop_prob,
        )

    def cells(self, genotype: Genotype) -> tuple[CellPlan, CellPlan]:
        """The normal and the reduction cell."""
        genes = iter(self.check(genotype))
        plans = []
        for rows in self.operations:
            edges: list[tuple[str, int]] = []
            for node in _NODES:
                sources = _PAIRS[node][next(genes)]
                edges += [(rows[EDGES.index((source, node))][next(genes)], source) for source in sources]
            plans.append(CellPlan(tuple(edges), _NODES))
        return plans[0], plans[1]

    def from_cells(self, normal: Any, reduce: Any) -> Genotype:
        """Genotype of the (operation, input) pairs of both cells, two for each node in any order.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        genes: list[int] = []
        for cell, rows in zip((normal, reduce), self.operations, strict=True):
            edges = read_edges(cell, list(dict.fromkeys(name for row in rows for name in row)), _N_NODES)
            for node in _NODES:
                (first, low), (second, high) = sorted(edges[2 * node - 4 : 2 * node - 2], key=lambda edge: edge[1])
                if low == high:
                    raise ArchitectureError(f"node {node} reads input {low} twice; expected two different ones")
                genes += [_PAIRS[node].index((low, high)), _option(rows, low, node, first)]
                genes.append(_option(rows, high, node, second))
        return tuple(genes)

    def format(self, genotype: Genotype) -> str:
        """The form of DARTS: ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)``."""
        fields = (
            f"{name}={list(plan.edges)}, {name}_concat=range(2, {2 + _N_NODES})"
            for name, plan in zip(_CELLS, self.cells(genotype), strict=True)
        )
        return f"Genotype({', '.join(fields)})"

    def parse(self, text: str) -> Genotype:
        """Genotype of such a string.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        return self.from_cells(*self._read(text, "is no Genotype(...)"))

    def _read(self, text: str, otherwise: str) -> Sequence[Any]:
        """Pairs of both cells of a string of any form, not yet checked."""
        try:
            return self._pairs(ast.parse(text.strip(), mode="eval").body)
        except ArchitectureError:
            raise
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ArchitectureError(f"{text!r} {otherwise}") from error

    def _pairs(self, expression: ast.expr) -> Sequence[Any]:
        if not isinstance(expression, ast.Call):
            raise ValueError("no call")
        return _genotype_fields(expression)


@register_space
class DARTS(DARTSCells):
    """Cells of four nodes whose edges are one of seven operations.

    Example:
        >>> DARTS().parse(str(2 * [4 * [(1, 3), (0, 2)]]))[:6]
        (0, 2, 3, 0, 2, 3)
    """

    name: ClassVar[str] = "darts"
    reference: ClassVar[str] = "Liu et al., ICLR 2019, arXiv:1806.09055"
    choices: tuple[int, ...] = genes_of(len(OPERATIONS))
    operations: ClassVar[tuple[Rows, Rows]] = ((OPERATIONS,) * len(EDGES),) * 2

    def compact(self, genotype: Genotype) -> str:
        """The form of NASLib: ``[[(0, 3), (1, 3), ...], [...]]``, pairs of input and index into the operations."""
        cells = [[(source, OPERATIONS.index(name)) for name, source in plan.edges] for plan in self.cells(genotype)]
        return str(cells)

    def parse(self, text: str) -> Genotype:
        """Genotype of either form.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        return self.from_cells(*self._read(text, "is neither Genotype(...) nor a compact cell pair"))

    def _pairs(self, expression: ast.expr) -> Sequence[Any]:
        if isinstance(expression, ast.Call):
            return super()._pairs(expression)
        normal, reduce = ast.literal_eval(expression)
        return [[(_operation(index), source) for source, index in cell] for cell in (normal, reduce)]


def _option(rows: Rows, source: int, node: int, name: str) -> int:
    """Number of an operation among those of an edge."""
    row = rows[EDGES.index((source, node))]
    if name not in row:
        raise ArchitectureError(
            f"{name!r} is no operation of the edge from {source} to {node}; those are {', '.join(row)}"
        )
    return row.index(name)


def _operation(index: object) -> str:
    if type(index) is not int or not 0 <= index < len(OPERATIONS):
        raise ArchitectureError(f"operation {index!r} is no index from 0 to {len(OPERATIONS) - 1}")
    return OPERATIONS[index]


def _genotype_fields(call: ast.Call) -> Sequence[Any]:
    """Pairs of both cells of a parsed ``Genotype(...)``; a ValueError if it has another form."""
    found = {field.arg: field.value for field in call.keywords}
    wanted = [*_CELLS, *(f"{name}_concat" for name in _CELLS)]
    if not (isinstance(call.func, ast.Name) and call.func.id == "Genotype" and not call.args):
        raise ValueError("no Genotype")
    if len(call.keywords) != len(wanted) or set(found) != set(wanted):
        raise ArchitectureError(f"expected the fields {', '.join(wanted)}, but got {', '.join(map(str, found))}")
    for name in wanted[2:]:
        concat = ast.unparse(found[name])
        if concat not in (f"range(2, {2 + _N_NODES})", str(list(_NODES))):
            raise ArchitectureError(f"{name} is {concat}; in this space it is {list(_NODES)}")
    return [ast.literal_eval(found[name]) for name in _CELLS]
