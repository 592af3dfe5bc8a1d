"""A tie-break by zero-cost scores: alphas decide where they are clear, and scores where they are not.

The rule is our own. Score of the default: Mellor et al., Neural Architecture Search without Training, ICML 2021,
arXiv:2006.04647.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TYPE_CHECKING, ClassVar

from naswot.differentiable._untrained import BuildOptions, best, check_scorable, untrained_scores
from naswot.differentiable.decisions import Decisions, Edge, Node, Settled, decisions_of
from naswot.differentiable.operation_scores import DEFAULT_PROXY, batch_of
from naswot.differentiable.plan import Selection
from naswot.errors import OptionError
from naswot.proxy import Proxy
from naswot.supernet import Weights
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


@dataclass(frozen=True)
class ScoreGuided(Selection):
    """Breaks near-ties of the weights by scores: of all architectures that they leave open, that of best score.

    An option is open if its weight lies within ``margin`` of the best of its row; an edge, if its strength (that of its
    best option) lies within ``margin`` of that of an edge that it could replace. The space's own choice is always one
    of the architectures, and wins where scores are equal. Works on the alphas of the epoch that counts.

    Args:
        margin: in weights, that is in shares of 1.
        proxy: see ``naswot list proxies``; scores are of untrained networks of their own, not of the supernet.
        limit: so many architectures at most, those of largest product of weights.
        build: options of ``space.build`` for these networks; where it shares options with the supernet, such as
            ``width``, these are the default.
    Raises:
        OptionError: for a negative margin or no architecture.
    """

    margin: float = 0.02
    proxy: str | Proxy = DEFAULT_PROXY
    limit: int = 100
    build: BuildOptions = ()

    needs_state: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.margin >= 0.0 or self.limit < 1:
            raise OptionError(
                f"expected a margin of at least 0 and a limit of at least 1, but got {self.margin:g} and {self.limit}"
            )

    def begin(self, session: SearchSession) -> None:
        """Refuse a proxy or options by which nothing can be scored."""
        check_scorable(session, self.proxy, self.build)

    def select(self, session: SearchSession) -> Genotype:
        """The architecture of best score; of several that of largest product of weights."""
        found = self.open(session)
        if len(found) == 1:
            return found[0]
        batches = [batch_of(session.task.fixed_batch())]
        return found[best(untrained_scores(session, found, self.proxy, batches=batches, build=self.build))]

    def open(self, session: SearchSession) -> list[Genotype]:
        """The architectures that are left open, the space's own choice and then by product of weights."""
        session.go_to_result()
        supernet = session.supernet
        weights = {name: table.cpu() for name, table in session.relaxation.expected(supernet).items()}
        decisions = decisions_of(supernet)
        found = dict.fromkeys([supernet.derive(weights)])
        for picks in largest_products(alternatives(decisions, weights, self.margin, self.limit), self.limit):
            settled = Settled(decisions)
            for pick in picks:
                settled.taken |= pick.taken
                settled.dropped |= pick.dropped
            found.setdefault(settled.genotype(supernet))
        return list(found)[: self.limit]


@dataclass(frozen=True)
class Pick:
    """One way to decide a row, or a node with the rows of its edges.

    Args:
        weight: product of the weights of what is taken.
        taken: options of rows of operations, by group and row.
        dropped: edges that are left out.
    """

    weight: float
    taken: Mapping[tuple[str, int], int] = field(default_factory=dict)
    dropped: frozenset[Edge] = frozenset()


def alternatives(decisions: Decisions, weights: Weights, margin: float, limit: int) -> list[list[Pick]]:
    """Ways to decide each row and node that a margin leaves open, those of largest weight first.

    Args:
        decisions: of the supernet.
        weights: of all options, on the CPU.
        margin: in weights.
        limit: so many ways of each at most.
    """
    in_nodes = {(edge.group, edge.row) for node in decisions.nodes for edge in node.edges if edge.option is None}
    rows = [_row_picks(decisions, weights, margin, Edge(*row)) for row in decisions.rows if row not in in_nodes]
    nodes = [_node_picks(decisions, weights, margin, node, limit) for node in decisions.nodes]
    return [picks[:limit] for picks in (*rows, *nodes)]


def _row_picks(decisions: Decisions, weights: Weights, margin: float, row: Edge) -> list[Pick]:
    """Options of a row of operations that lie within the margin of the best; the edge alone where it is an option."""
    if row.option is not None:
        return [Pick(float(weights[row.group][row.row, row.option]))]
    place = decisions.scales.get(row)
    scale = 1.0 if place is None else float(weights[place[0]][place[1:]])
    found = {option: float(weights[row.group][row.row, option]) for option in decisions.options[row.group][row.row]}
    if not found:
        return [Pick(0.0)]
    best_weight = max(found.values())
    ranked = sorted(found, key=lambda option: (-found[option], option))
    near = [option for option in ranked if found[option] >= best_weight - margin]
    return [Pick(scale * found[option], {(row.group, row.row): option}) for option in near]


def _node_picks(decisions: Decisions, weights: Weights, margin: float, node: Node, limit: int) -> list[Pick]:
    """Sets of edges of which none is weaker than one left out by more than the margin, with options of their rows."""
    options = {edge: _row_picks(decisions, weights, margin, edge) for edge in node.edges}
    strength = {edge: picks[0].weight for edge, picks in options.items()}
    ranked = sorted(node.edges, key=lambda edge: (-strength[edge], edge))
    found: list[Pick] = []
    for kept in combinations(ranked, node.n_kept):
        left = frozenset(node.edges) - frozenset(kept)
        if min(strength[edge] for edge in kept) < max(strength[edge] for edge in left) - margin:
            continue
        for picks in product(*(options[edge] for edge in kept)):
            taken = {place: option for pick in picks for place, option in pick.taken.items()}
            found.append(Pick(math.prod(pick.weight for pick in picks), taken, left))
        found = sorted(found, key=lambda pick: -pick.weight)[:limit]
    return found


def largest_products(choices: Sequence[Sequence[Pick]], limit: int) -> list[tuple[Pick, ...]]:
    """Ways to choose one of each, those of largest product of weights first; of equal ones the earlier choices.

    Args:
        choices: each in the order of falling weights.
        limit: so many at most.
    """

    def entry(places: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return -math.prod(own[i].weight for own, i in zip(choices, places, strict=True)), places

    heap = [entry((0,) * len(choices))]
    found: list[tuple[Pick, ...]] = []
    while heap and len(found) < limit:
        _, places = heapq.heappop(heap)
        found.append(tuple(own[i] for own, i in zip(choices, places, strict=True)))
        last = max((i for i, place in enumerate(places) if place), default=0)
        for i in range(last, len(places)):  # each way is reached from one other only
            if places[i] + 1 < len(choices[i]):
                heapq.heappush(heap, entry((*places[:i], places[i] + 1, *places[i + 1 :])))
    return found
