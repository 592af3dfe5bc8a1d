"""The language model around a recurrent cell: embedding, cell, decoder with the same weights, five kinds of dropout.

Papers: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, appendix A.1.2 (the cell);
Merity et al., Regularizing and Optimizing LSTM Language Models, ICLR 2018, arXiv:1708.02182 (the dropouts). Original
code: github.com/quark0/darts, ``rnn/model.py``. Differences: the batch comes first; logits, not their log-softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naswot.errors import InputError, OptionError

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
N_NODES: Final = 8
_INITIAL: Final = 0.04  # weights are uniform between minus this and this
_INTEGERS: Final = (torch.int64, torch.int32)


@dataclass
class Passage:
    """Tokens to be read from a state on, with an answer after each of them.

    Args:
        tokens: (N, T) int64.
        state: (N, H) with which the first token is read; None: zeros.
    Attributes:
        after: (N, H) without a graph, the state after the last reading by whoever wants the next passage to begin
            with it; None before.
    """

    tokens: Tensor
    state: Tensor | None = None
    after: Tensor | None = None


class Reading(NamedTuple):
    """What a language model makes of a passage.

    Args:
        logits: (N, T, K) of the token behind each token.
        states: (N, T, H) of the cell after each token, before dropout.
    """

    logits: Tensor
    states: Tensor


@dataclass(frozen=True, kw_only=True)
class Dropouts:
    """Probabilities of what is dropped in training, each mask the same for all tokens of a passage.

    Args:
        output: values of the cell's output.
        hidden: values of the states inside of the cell, and of the state before.
        input: values of what the cell reads.
        embedding: values of the embedded tokens.
        word: words, wherever they occur.
    Raises:
        OptionError: unless each is in [0, 1).
    """

    output: float = 0.75
    hidden: float = 0.25
    input: float = 0.75
    embedding: float = 0.2
    word: float = 0.1

    def __post_init__(self) -> None:
        wrong = {name: p for name, p in vars(self).items() if not 0.0 <= p < 1.0}
        if wrong:
            raise OptionError(f"expected dropout probabilities in [0, 1), but got {wrong}")


class RecurrentCell(nn.Module):
    """The weights of a cell, the state that its nodes begin with, and the way through the tokens.

    Args:
        width: H.
        dropouts: of which it uses ``input`` and ``hidden``.
    """

    def __init__(self, width: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.dropouts = dropouts
        self.first = nn.Linear(2 * width, 2 * width, bias=False)
        self.gates = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(N_NODES))
        for linear in (self.first, *self.gates):
            nn.init.uniform_(linear.weight, -_INITIAL, _INITIAL)

    def unrolled(self, inputs: Tensor, state: Tensor, nodes: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        """States after each token, (N, T, H).

        Args:
            inputs: (N, T, H) embedded tokens.
            state: (N, H) before them.
            nodes: from the first state (N, H) of a token and the mask (N, H) of the states to the cell's output (N, H).
        """
        n, _, width = inputs.shape
        of_states: Tensor | None = None
        if self.training:
            inputs = inputs * dropout_mask(inputs, (n, 1, width), self.dropouts.input)
            of_states = dropout_mask(inputs, (n, width), self.dropouts.hidden)
        found = []
        for read in inputs.unbind(1):
            both = torch.cat([read, masked(state, of_states)], dim=1)
            state = nodes(moved(state, self.first(both), torch.tanh), of_states)
            found.append(state)
        return torch.stack(found, dim=1)


class PlannedCell(RecurrentCell):
    """The cell of one architecture.

    Args:
        nodes: activation and predecessor of each node; predecessor 0 is the first state, i the node before number i.
        width: H.
        dropouts: of which it uses ``input`` and ``hidden``.
    """

    def __init__(self, nodes: Sequence[tuple[str, int]], width: int, dropouts: Dropouts) -> None:
        super().__init__(width, dropouts)
        self.nodes = tuple(nodes)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(N, T, H) and (N, H) to the states (N, T, H)."""
        return self.unrolled(inputs, state, self._nodes)

    def _nodes(self, first: Tensor, mask: Tensor | None) -> Tensor:
        states = [first]
        for gate, (name, source) in zip(self.gates, self.nodes, strict=True):
            states.append(moved(states[source], gate(masked(states[source], mask)), ACTIVATIONS[name]))
        return torch.stack(states[1:]).mean(0)


def moved(state: Tensor, gate: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """``state + sigmoid(c) * (activation(h) - state)``, where ``c`` and ``h`` are the halves of ``gate``.

    Args:
        state: (..., H).
        gate: (..., 2 H).
        activation: of the values h.
    """
    c, h = gate.chunk(2, dim=-1)
    return state + torch.sigmoid(c) * (activation(h) - state)


def masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """The product; the values as they are without a mask."""
    return values if mask is None else values * mask


def dropout_mask(like: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Zeros with a probability, else what keeps the mean; of the type and on the device of another tensor."""
    return F.dropout(like.new_ones(shape), probability)


class LanguageModel(nn.Module):
    """Embedding, a recurrent cell, and a decoder that shares the embedding's weights.

    Args:
        cell: from (N, T, H) embedded tokens, (N, H) state, and whatever else :meth:`forward` is given, to (N, T, H).
        n_tokens: K.
        width: H.
        dropouts: probabilities.
    """

    def __init__(self, cell: nn.Module, n_tokens: int, width: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.width, self.dropouts = width, dropouts
        self.embedding = nn.Embedding(n_tokens, width)
        self.cell = cell
        self.decoder = nn.Linear(width, n_tokens)
        self.decoder.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -_INITIAL, _INITIAL)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, inputs: Tensor | Passage, *more: Any) -> Any:
        """Logits of what comes next.

        Args:
            inputs: (N, T) int64 tokens, read from a state of zeros, for the logits (N, K) of the token behind the last;
                or a :class:`Passage` for a :class:`Reading` of every token.
            more: for the cell.
        Raises:
            InputError: if these are no tokens of the vocabulary.
        """
        passage = inputs if isinstance(inputs, Passage) else Passage(inputs)
        tokens = self._checked(passage.tokens)
        embedded = self._embedded(tokens)
        state = passage.state
        if state is None:
            state = embedded.new_zeros(len(tokens), self.width)
        states: Tensor = self.cell(embedded, state, *more)
        dropped = states
        if self.training:
            dropped = states * dropout_mask(states, (len(tokens), 1, self.width), self.dropouts.output)
        if isinstance(inputs, Passage):
            return Reading(self.decoder(dropped), states)
        return self.decoder(dropped[:, -1])

    def _embedded(self, tokens: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training and self.dropouts.word > 0.0:
            words = dropout_mask(weight, (len(weight), 1), self.dropouts.word)
            embedded = F.embedding(tokens, weight * words)
        else:
            embedded = self.embedding(tokens)
        if self.training:
            embedded = embedded * dropout_mask(embedded, (len(tokens), 1, self.width), self.dropouts.embedding)
        return embedded

    def _checked(self, tokens: Any) -> Tensor:
        if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.dtype not in _INTEGERS or not tokens.numel():
            shape = f"{tuple(tokens.shape)} {tokens.dtype}" if isinstance(tokens, Tensor) else type(tokens).__name__
            raise InputError(
                f"expected token ids of shape (N, T) int64, but got {shape}: this network is a language model and "
                "reads text, such as naswot.data.text.get_corpus gives, and no images"
            )
        known = self.embedding.num_embeddings
        if not tokens.is_meta and (int(tokens.min()) < 0 or int(tokens.max()) >= known):
            raise InputError(
                f"token ids go from {int(tokens.min())} to {int(tokens.max())}, but the vocabulary of the network "
                f"holds {known:,}; build it with n_classes={int(tokens.max()) + 1} or more"
            )
        return tokens
