"""What an architecture of a supernet decides: which options it can take, and between which edges it chooses.

A supernet tells it by two functions only, :meth:`~naswot.supernet.MixedSupernet.derive` and
:meth:`~naswot.supernet.MixedSupernet.chosen`, so it is found out by asking them. Spaces of two kinds are understood:
those where each decision between edges is a row of kind edge, of which the strongest few options are kept; and those
where edges are rows of operations, of which some sets keep the strongest few.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
from torch import Tensor

from naswot.seeding import torch_generator
from naswot.supernet import Group, MixedSupernet, Mixing, Weights, only_chosen
from naswot.types import Genotype

_DROPPED, _DOUBTFUL, _FORCED = 0.0, 0.5, 4.0  # strengths by which derive is asked, beside 1
_QUESTIONS: Final = 64  # where what is chosen depends on what else is, it is asked with so many random strengths


class Edge(NamedTuple):
    """Something of which only some are kept.

    Args:
        group: its name.
        row: in the group.
        option: of a row of kind edge; None: the edge is a whole row of operations.
    """

    group: str
    row: int
    option: int | None = None


@dataclass(frozen=True)
class Node:
    """Edges of which the strongest are kept.

    Args:
        edges: in order.
        n_kept: how many.
    """

    edges: tuple[Edge, ...]
    n_kept: int


@dataclass(frozen=True)
class Decisions:
    """All that the architectures of a supernet decide, options that are not allowed left out.

    Args:
        groups: that an architecture is made of; those that only weigh edges in the mixture are none of them.
        options: of each group of operations by name the options of each row that can be taken.
        nodes: sets of edges between which is chosen.
        scales: edges whose strength is multiplied by a weight, with the place of that weight.
    """

    groups: tuple[Group, ...]
    options: Mapping[str, tuple[tuple[int, ...], ...]]
    nodes: tuple[Node, ...]
    scales: Mapping[Edge, tuple[str, int, int]]

    @property
    def rows(self) -> list[tuple[str, int]]:
        """Group and row of all choices of an operation, in order."""
        return [(name, row) for name, rows in self.options.items() for row in range(len(rows))]


@dataclass
class Settled:
    """What is decided so far on the way from a mixture to an architecture.

    Args:
        decisions: all there are.
        taken: option of a row of operations, by group and row.
        dropped: edges that are left out.
    """

    decisions: Decisions
    taken: dict[tuple[str, int], int] = field(default_factory=dict)
    dropped: set[Edge] = field(default_factory=set)

    def tables(self, weights: Weights) -> dict[str, Tensor]:
        """Weights of all groups where rows that are decided weigh 1 in their option, and edges left out 0."""
        found = {name: table.detach().clone() for name, table in weights.items()}
        for (name, row), option in self.taken.items():
            found[name][row] = torch.zeros_like(found[name][row])
            found[name][row, option] = 1.0
        for edge in self.dropped:
            found[edge.group][_place(edge)] = 0.0
        return found

    def mixing(self, weights: Weights, *, without: Edge | None = None) -> Mixing:
        """The network with what is decided, and without one option or edge more; what weighs 0 is not executed.

        The other weights of the row are left as they are.
        """
        found = self.tables(weights)
        if without is not None:
            found[without.group][_place(without)] = 0.0
        return only_chosen(found)

    def genotype(self, supernet: MixedSupernet) -> Genotype:
        """The architecture, when all rows are decided and all nodes have the edges that they keep."""
        ones = {group.name: group.present().float() for group in self.decisions.groups}
        return supernet.derive(self.tables(ones))


def decisions_of(supernet: MixedSupernet) -> Decisions:
    """Find out what the architectures of a supernet decide."""
    ask = _Asked(supernet)
    options = {group.name: ask.options(group) for group in ask.groups if group.kind == "operation"}
    nodes = tuple(node for group in ask.groups for node in ask.nodes(group))
    scales = {edge: place for node in nodes for edge in node.edges if (place := ask.scale(edge)) is not None}
    return Decisions(ask.groups, options, nodes, scales)


class _Asked:
    """A supernet that is asked which strengths lead to which architecture."""

    def __init__(self, supernet: MixedSupernet) -> None:
        self.supernet = supernet
        self.allowed = {group.name: supernet.allowed(group.name).cpu().float() for group in supernet.groups}
        made_of = self.chosen(self.allowed)
        self.groups = tuple(group for group in supernet.groups if group.name in made_of)
        self.edge_rows = any(group.kind == "edge" for group in self.groups)
        rng = torch_generator(0)
        self.bases = [
            {name: table * torch.rand(table.shape, generator=rng) for name, table in self.allowed.items()}
            for _ in range(_QUESTIONS if self.edge_rows else 0)
        ]

    def chosen(self, strengths: Weights) -> dict[str, Tensor]:
        """What the architecture of some strengths takes."""
        return self.supernet.chosen(self.supernet.derive(strengths))

    def keeps(self, edge: Edge, strengths: Mapping[Edge, float], base: Weights | None = None) -> bool:
        """Whether the architecture has an edge (or option) when some strengths are multiplied."""
        tables = {name: table.clone() for name, table in (base or self.allowed).items()}
        for other, strength in strengths.items():
            tables[other.group][_place(other)] *= strength
        return bool(self.chosen(tables)[edge.group][_place(edge)].any())

    def options(self, group: Group) -> tuple[tuple[int, ...], ...]:
        """Options of each row that are taken when they are the strongest, in some company at least."""
        found: list[list[int]] = [[] for _ in group.options]
        for row, option in self.allowed[group.name].nonzero().tolist():
            edge = Edge(group.name, row, option)
            if any(self.keeps(edge, {edge: _FORCED}, base) for base in (self.allowed, *self.bases)):
                found[row].append(option)
        return tuple(map(tuple, found))

    def nodes(self, group: Group) -> list[Node]:
        """Sets of edges of which some are kept."""
        if self.edge_rows:
            return self._row_nodes(group) if group.kind == "edge" else []
        edges = [Edge(group.name, row) for row in range(len(group.options))]
        dropped: list[Edge] = []
        for edge in edges:
            if self._can_go(edge, dropped):
                dropped.append(edge)
        rest = [edge for edge in edges if edge not in dropped]
        # where one edge more is kept, another one of the same set can be left out
        found: dict[tuple[Edge, ...], list[Edge]] = {}
        for edge in dropped:
            others = [other for other in dropped if other != edge]
            found.setdefault(tuple(e for e in rest if self._can_go(e, others)), []).append(edge)
        return [Node(tuple(sorted([*kept, *left])), len(kept)) for kept, left in found.items()]

    def _row_nodes(self, group: Group) -> list[Node]:
        """A node for each row that keeps fewer options than it has; a row that is of no use keeps none at times."""
        kept = torch.stack([self.chosen(base)[group.name].sum(1) for base in self.bases]).amax(0)
        rows = [row.nonzero()[:, 0].tolist() for row in self.allowed[group.name]]
        return [
            Node(tuple(Edge(group.name, row, option) for option in own), int(kept[row]))
            for row, own in enumerate(rows)
            if len(own) > int(kept[row])
        ]

    def _can_go(self, edge: Edge, dropped: Collection[Edge]) -> bool:
        return not self.keeps(edge, dict.fromkeys(dropped, _DROPPED) | {edge: _DOUBTFUL})

    def scale(self, edge: Edge) -> tuple[str, int, int] | None:
        """The weight of a group of kind edge that keeps a row of operations which is weaker than the others."""
        if edge.option is not None:
            return None
        for name, row, option in self._weighing():
            if self.keeps(edge, {edge: _DOUBTFUL, Edge(name, row, option): _FORCED}):
                return name, row, option
        return None

    def _weighing(self) -> Iterable[tuple[str, int, int]]:
        own = {group.name for group in self.groups}
        for group in self.supernet.groups:
            if group.kind == "edge" and group.name not in own:
                for row, option in self.allowed[group.name].nonzero().tolist():
                    yield group.name, row, option


def _place(edge: Edge) -> tuple[int, ...]:
    return (edge.row,) if edge.option is None else (edge.row, edge.option)
