"""NAS-Bench-201: cells of four nodes and six edges with five operations, 15,625 in all.

Paper: Dong & Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search, ICLR 2020,
arXiv:2001.00326. Original code: github.com/D-X-Y/AutoDL-Projects. NATS-Bench calls it the topology search space.
Differences: those of ``_nasbench201_network.py``; and the original has only the key of :meth:`NASBench201.canonical`.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import ClassVar, Final, NoReturn

from torch import nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces._nasbench201_network import (
    CONV_1X1,
    CONV_3X3,
    EDGES,
    NONE,
    OPERATIONS,
    SKIP,
    CellNetwork,
    count_parameters,
)
from naswot.types import Genotype

_PATTERN: Final = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
_NOTHING: Final = "#"
_INCOMING: Final = {node: tuple(e for e, edge in enumerate(EDGES) if edge[1] == node) for node in range(4)}
_OUTGOING: Final = {node: tuple(e for e, edge in enumerate(EDGES) if edge[0] == node) for node in range(4)}


@register_space
class NASBench201(SearchSpace):
    """Six operations, one per edge: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2 (target<-source).

    An option is an index into none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3. An edge is live if its
    operation is not none, its source is reachable from node 0 and its target reaches node 3, both by such edges.

    Three keys, each coarser or finer on purpose: ``canonical`` (6,466 classes) is the published one, ``pruned`` (5,390)
    also forgets dead edges, ``exact`` (5,731) splits the 337 pruned classes that mix cells of different functions.

    Example:
        >>> NASBench201().format((3, 0, 1, 2, 4, 3))
        '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|'
    """

    name: ClassVar[str] = "nasbench201"
    reference: ClassVar[str] = "Dong & Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326"
    choices: tuple[int, ...] = (len(OPERATIONS),) * len(EDGES)

    def build(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        n_cells: int = 5,
        pruned: bool = False,
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: the cell.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 4.
            width: channels of the first stage; the next two have 2 and 4 times as many.
            n_cells: cells per stage.
            pruned: build live edges only: the same function in fewer steps and parameters, but other random weights.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            ArchitectureError: if the space does not contain ``genotype``.
            OptionError: if a number is below 1.
        """
        genotype = self.prune(genotype) if pruned else self.check(genotype)
        _check_numbers(n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells)
        return CellNetwork(
            genotype, n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells, pruned=pruned
        )

    def n_parameters(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        n_cells: int = 5,
        pruned: bool = False,
    ) -> int:
        """Parameters P of what :meth:`build` gives for the same arguments, without building it."""
        genotype = self.prune(genotype) if pruned else self.check(genotype)
        _check_numbers(n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells)
        return count_parameters(genotype, n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells)

    def format(self, genotype: Genotype) -> str:
        """Official string: nodes joined by ``+``, each with its edges ``operation~source`` between bars."""
        operations = self.check(genotype)
        nodes = []
        for target in (1, 2, 3):
            edges = [f"{OPERATIONS[operations[e]]}~{EDGES[e][0]}" for e in _INCOMING[target]]
            nodes.append(f"|{'|'.join(edges)}|")
        return "+".join(nodes)

    def parse(self, text: str) -> Genotype:
        """Genotype of an official string.

        Raises:
            ArchitectureError: naming the first thing, from the left, that does not fit.
        """
        nodes = text.split("+")
        genotype: list[int] = []
        for target, node in enumerate(nodes, start=1):
            if target > 3:
                _refuse(text, f"it has {len(nodes)} nodes instead of 3")
            if len(node) < 2 or node[0] != "|" or node[-1] != "|":
                _refuse(text, f"node {target} is {node!r}, which does not stand between bars '|'")
            edges = node[1:-1].split("|")
            genotype += [_parse_edge(text, target, source, edge) for source, edge in enumerate(edges[:target])]
            if len(edges) != target:
                _refuse(text, f"node {target} has {len(edges)} edges instead of {target}")
        if len(nodes) < 3:
            _refuse(text, f"it has {len(nodes)} nodes instead of 3")
        return tuple(genotype)

    def canonical(self, genotype: Genotype) -> str:
        """Key of the 6,466 isomorphism classes that the benchmark's authors count.

        It is the expression of node 3, where a skip edge stands for its source's expression. Two properties follow
        from its being a text. A none edge is ``#`` and passes on as nothing only from node 1, whose expression then is
        ``#`` too; a node 2 without input reads ``#+#`` and counts as something. And the expression of a skipped-to sum
        stays one block in the sorted order, so ``a + (b + c)`` and ``(a + b) + c`` are told apart for some operations.
        The key cannot tell one convolution that is read twice from two with equal inputs; see :meth:`exact`.
        """
        return _expression(self.check(genotype), keep_none=True)

    def pruned(self, genotype: Genotype) -> str:
        """Key of what is left without dead edges: 5,390 classes; ``#`` for all 341 cells without a path.

        As :meth:`canonical`, but none edges do not appear at all. Merged with equal sums written in another order,
        which this key tells apart now and then, there would be 4,930.
        """
        return _expression(self.prune(genotype), keep_none=False)

    def exact(self, genotype: Genotype) -> tuple[str, int, int]:
        """Key shared only by cells that compute the same function up to a renaming of weights: 5,731 classes.

        The pruned key with the numbers of live 1x1 and 3x3 convolutions. These differ within 337 of the 5,390 pruned
        classes (2,391 cells), where one convolution read by several nodes stands beside several of the same inputs.
        Both have the same expression, yet other parameters and in general other scores.
        """
        live = self.prune(genotype)
        return _expression(live, keep_none=False), live.count(CONV_1X1), live.count(CONV_3X3)

    def prune(self, genotype: Genotype) -> Genotype:
        """``genotype`` with every dead edge replaced by none."""
        operations = self.check(genotype)
        fed = _reachable(operations)
        useful = {3}
        for source in (2, 1, 0):
            if any(operations[e] != NONE and EDGES[e][1] in useful for e in _OUTGOING[source]):
                useful.add(source)
        return tuple(
            operation if source in fed and target in useful else NONE
            for operation, (source, target) in zip(operations, EDGES, strict=True)
        )

    def representative(self, genotype: Genotype) -> Genotype:
        """Lexicographically first genotype of the same :meth:`exact` class; it has no dead edges.

        A score of the pruned network, taken once for each of the 5,731 classes, is then that of every member; the
        5,390 classes of :meth:`pruned` would lend 2,391 cells the score and parameters of another function.

        Example:
            >>> NASBench201().representative((3, 4, 4, 1, 0, 0))  # only the skip 3<-0 is live
            (0, 0, 0, 1, 0, 0)
        """
        return _first_of_class()[self.exact(genotype)]

    def has_path(self, genotype: Genotype) -> bool:
        """Whether the output depends on the input at all; 341 cells have no path."""
        return any(self.prune(genotype))

    def is_singular(self, genotype: Genotype) -> bool:
        """Whether no activation of any cell sees the image: 201 cells.

        There is no path from input to output, and no convolution edge reads a node that the input reaches. Only the
        first cell of all receives anything but zeros then, and no ReLU looks at that, so all images share their codes.
        """
        operations = self.check(genotype)
        fed = _reachable(operations)
        reads = any(
            operation in (CONV_1X1, CONV_3X3) and source in fed
            for operation, (source, _) in zip(operations, EDGES, strict=True)
        )
        return not reads and not self.has_path(operations)


def _reachable(operations: Genotype) -> set[int]:
    """Nodes that the input reaches."""
    fed = {0}
    for target in (1, 2, 3):
        if any(operations[e] != NONE and EDGES[e][0] in fed for e in _INCOMING[target]):
            fed.add(target)
    return fed


def _expression(operations: Genotype, *, keep_none: bool) -> str:
    """Expression of node 3 in terms of the input, ``0``; see :meth:`NASBench201.canonical`."""
    nodes = ["0"]
    for target in (1, 2, 3):
        terms = []
        for e in _INCOMING[target]:
            source = nodes[EDGES[e][0]]
            if operations[e] == NONE or source == _NOTHING:
                terms += [_NOTHING] if keep_none else []
            else:
                terms.append(source if operations[e] == SKIP else f"({source}){OPERATIONS[operations[e]]}")
        nodes.append("+".join(sorted(terms)) or _NOTHING)
    return nodes[-1]


@cache
def _first_of_class() -> dict[tuple[str, int, int], Genotype]:
    space = NASBench201()
    first: dict[tuple[str, int, int], Genotype] = {}
    for genotype in space.genotypes():
        first.setdefault(space.exact(genotype), genotype)
    return first


def _parse_edge(text: str, target: int, source: int, edge: str) -> int:
    """Index of the operation in ``op~source``."""
    name, tilde, number = edge.partition("~")
    if name not in OPERATIONS:
        near = difflib.get_close_matches(name, OPERATIONS, n=1, cutoff=0.3)
        guess = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(OPERATIONS)}"
        _refuse(text, f"unknown operation {name!r} on edge {target}<-{source}{guess}")
    if tilde + number != f"~{source}":
        _refuse(text, f"edge {edge!r} of node {target} should end in '~{source}'")
    return OPERATIONS.index(name)


def _refuse(text: str, why: str) -> NoReturn:
    raise ArchitectureError(f"{text!r} is no cell of nasbench201: {why} (the form is {_PATTERN})")


def _check_numbers(**numbers: int) -> None:
    for option, value in numbers.items():
        if value < 1:
            raise OptionError(f"expected {option} of at least 1, but got {value}")
