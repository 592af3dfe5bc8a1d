"""Supernet of the recurrent space of DARTS: every node reads all states before it through all activations.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, section 3.1.2 and appendix
A.1.2. Original code: github.com/quark0/darts, ``rnn/model_search.py``. Differences: those of
``spaces/_recurrent_network.py``; each state has running statistics of its own, where those of the original are common
to all, which differs in evaluation only; an activation that is not allowed or not executed is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, Final

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.space import SearchSpace
from naswot.spaces._recurrent_network import (
    ACTIVATIONS,
    N_NODES,
    Dropouts,
    LanguageModel,
    Passage,
    RecurrentCell,
    masked,
)
from naswot.supernet import Active, Allowed, Group, MixedSupernet, Mixing, Weights, register_supernet
from naswot.types import Genotype

OPERATIONS: Final = ("none", *ACTIVATIONS)
ROWS: Final = tuple((source, node) for node in range(1, N_NODES + 1) for source in range(node))
"""Predecessor and node of each row."""
_GROUP: Final = "recurrent"

Read = Sequence[Sequence[int]]
"""Of each option of a node: the predecessors that are read through it."""


@register_supernet("ptb_rnn")
class PTBRNNSupernet(MixedSupernet):
    """One group ``recurrent`` of 36 rows, one for each node and state before it; options none and four activations.

    All of a node's options share its weights. Every state is normalised over the batch, without learned scales.

    Args:
        space: the recurrent space.
        n_classes: words of the vocabulary K.
        in_channels: not used.
        allowed: options by group; None: all.
        width: H of embedding and cell. Published: 300.
        output_dropout: of the cell's output.
        hidden_dropout: of the states in the cell.
        input_dropout: of what the cell reads.
        embedding_dropout: of the embedded tokens.
        word_dropout: of whole words.
    Raises:
        OptionError: for a vocabulary or width below 1, or probabilities outside [0, 1).
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        n_classes: int = 10_000,
        in_channels: int = 3,  # noqa: ARG002  (text has none; every supernet takes it)
        allowed: Allowed | None = None,
        width: int = 300,
        output_dropout: float = 0.75,
        hidden_dropout: float = 0.25,
        input_dropout: float = 0.75,
        embedding_dropout: float = 0.2,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__(space, (Group(_GROUP, (OPERATIONS,) * len(ROWS)),), allowed)
        if min(n_classes, width) < 1:
            raise OptionError(f"expected n_classes and width of at least 1, but got {n_classes} and {width}")
        dropouts = Dropouts(
            output=output_dropout,
            hidden=hidden_dropout,
            input=input_dropout,
            embedding=embedding_dropout,
            word=word_dropout,
        )
        cell = _MixedCell(width, dropouts, self.allowed(_GROUP))
        self.model = LanguageModel(cell, n_classes, width, dropouts)

    def forward(self, inputs: Tensor | Passage, mixing: Mixing) -> Any:
        """Logits of what comes next, as those of the networks of the space.

        Args:
            inputs: (N, T) int64 tokens for the logits (N, K) of the token behind the last; or a
                :class:`~naswot.spaces._recurrent_network.Passage`, with the state that it begins with, for a
                :class:`~naswot.spaces._recurrent_network.Reading` of every token.
            mixing: weights.
        """
        return self.model(inputs, mixing)

    def derive(self, strengths: Weights) -> Genotype:
        """Of each node the predecessor whose best activation is strongest, and that; none does not count."""
        table = self.takeable(strengths, _GROUP)[:, 1:]
        genes: list[int] = []
        for node in range(1, N_NODES + 1):
            best, operation = table[_rows(node)].max(1)
            source = int(best.argmax())
            genes += [source, int(operation[source])]
        return tuple(genes)

    def chosen(self, genotype: Genotype) -> dict[str, Tensor]:
        """One activation in one row of each node."""
        table = torch.zeros(len(ROWS), len(OPERATIONS))
        for node in range(1, N_NODES + 1):
            source, operation = genotype[2 * node - 2 : 2 * node]
            table[_rows(node).start + source, operation + 1] = 1.0
        return {_GROUP: table}


def _rows(node: int) -> slice:
    """The rows of a node, from 1."""
    first = node * (node - 1) // 2
    return slice(first, first + node)


class _MixedCell(RecurrentCell):
    def __init__(self, width: int, dropouts: Dropouts, allowed: Tensor) -> None:
        super().__init__(width, dropouts)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for _ in range(N_NODES + 1))
        self._built = allowed.tolist()

    def forward(self, inputs: Tensor, state: Tensor, mixing: Mixing) -> Tensor:
        """(N, T, H) and (N, H) to the states (N, T, H)."""
        plan = self._plan(mixing.active)
        weights = [mixing.weights[_GROUP][_rows(node)] for node in range(1, N_NODES + 1)]
        extra = self._inactive(weights, plan) if mixing.inactive_weights else None

        def nodes(first: Tensor, mask: Tensor | None) -> Tensor:
            states = [self.norms[0](first)]
            for number, gate in enumerate(self.gates):
                mixed = _mixed(states, gate, weights[number], plan[number], mask)
                states.append(self.norms[number + 1](mixed if extra is None else mixed + extra[number]))
            return torch.stack(states[1:]).mean(0)

        return self.unrolled(inputs, state, nodes)

    def _plan(self, active: Active | None) -> list[Read]:
        rows = None if active is None else active.get(_GROUP)

        def runs(row: int, option: int) -> bool:
            return self._built[row][option] and (rows is None or option in rows[row])

        numbered = [range(len(ROWS))[_rows(node)] for node in range(1, N_NODES + 1)]
        options = range(len(OPERATIONS))
        return [[[s for s, row in enumerate(of) if runs(row, option)] for option in options] for of in numbered]

    def _inactive(self, weights: Sequence[Tensor], plan: Sequence[Read]) -> list[Tensor]:
        """Of each node the sum of the weights of what is not executed, through which a gradient reaches them."""
        sums = []
        for node, (table, read) in enumerate(zip(weights, plan, strict=True), 1):
            left = torch.tensor(self._built[_rows(node)], device=table.device)
            for option, sources in enumerate(read):
                left[list(sources), option] = False
            sums.append(table[left].sum())
        return sums


def _mixed(states: Sequence[Tensor], gate: nn.Module, weights: Tensor, read: Read, mask: Tensor | None) -> Tensor:
    """Weighted sum of a node over predecessors and activations, (N, H); zeros if nothing is executed."""
    sources = sorted(set().union(*read[1:]))
    if not sources:
        return states[0] * 0.0
    before = torch.stack([states[source] for source in sources])
    c, h = gate(masked(before, mask)).chunk(2, dim=-1)
    c = torch.sigmoid(c)
    terms = []
    for option, function in enumerate(ACTIVATIONS.values(), 1):
        places = [sources.index(source) for source in read[option]]
        if not places:
            continue
        b, gated, value = (v if len(places) == len(sources) else v[places] for v in (before, c, h))
        scale = weights[list(read[option]), option]
        terms.append(torch.einsum("s,snh->nh", scale, b + gated * (function(value) - b)))
    return reduce(add, terms)
