"""A recurrent controller: one decision after the other, each knowing those before it.

Papers: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578, Sections 3.1
and 3.3; the mean of the chosen anchors as the input after an anchor point is that of Pham et al., ENAS, ICML 2018,
arXiv:1802.03268, where the former is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from naswot.errors import OptionError
from naswot.search._policy import MAX_TRIES
from naswot.seeding import seeded
from naswot.space import SearchSpace
from naswot.types import Genotype

SKIP = "skip"
"""Kind of a decision whether an earlier layer feeds this one."""

_CHUNK = 256  # sequences drawn at once after some that were all invalid

Pick = Callable[[int, Tensor], Tensor]
"""Options at a position, (n,) int64, given the log-probabilities of all of them, (n, options)."""


class Step(NamedTuple):
    """One step of the recurrence.

    Args:
        positions: what is decided: one position, or all skips into one layer (none for the first layer).
        kind: number of the softmax and embedding that are used; None at an anchor point.
    """

    positions: tuple[int, ...]
    kind: int | None


class Walk(NamedTuple):
    """Sequences under the policy.

    Args:
        genes: (n, positions) int64.
        log_probabilities: (n,) in nats.
        entropies: (n,) in nats; sums over the decisions met on the way, whose mean is the policy's entropy.
    """

    genes: Tensor
    log_probabilities: Tensor
    entropies: Tensor


@dataclass(frozen=True)
class Squash:
    """Keeps logits within bounds, so that the policy stays ready to try: ``bound * tanh(logits / temperature)``.

    Args:
        bound: c, the tanh constant of ENAS.
        temperature: T.
    """

    bound: float
    temperature: float

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits of the same shape."""
        return self.bound * torch.tanh(logits / self.temperature)


class Controller(nn.Module):
    """Stacked LSTM with a softmax and an embedding for each kind of decision, and anchor points for skips.

    Kinds are those of ``space.decisions`` where a space has such a tuple beside its ``choices``; otherwise every
    position is a kind of its own. After the size decisions of a layer stands an anchor point with state h_i; an earlier
    layer j feeds it with probability ``sigmoid(v . tanh(W_prev h_j + W_curr h_i))``.

    Args:
        space: what is decided.
        hidden: units of each LSTM layer, also the size of embeddings.
        n_layers: LSTM layers.
        seed: of the weights.
        spread: they are uniform in [-spread, spread].
        squash: applied to all logits, such as :class:`Squash`; None: they stay as they are.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        hidden: int,
        n_layers: int,
        seed: int,
        spread: float = 0.08,
        squash: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.hidden, self.n_layers, self._n_positions = hidden, n_layers, len(space.choices)
        self._squash: Callable[[Tensor], Tensor] = squash or (lambda logits: logits)
        self.steps, sizes = plan(space)
        with seeded(seed):
            self.cells = nn.ModuleList(nn.LSTMCell(hidden, hidden) for _ in range(n_layers))
            self.embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
            self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
            self.start = nn.Parameter(torch.empty(hidden))
            self.previous = nn.Linear(hidden, hidden, bias=False)  # W_prev
            self.current = nn.Linear(hidden, hidden, bias=False)  # W_curr
            self.anchor = nn.Linear(hidden, 1, bias=False)  # v
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -spread, spread)

    def evaluate(self, genotypes: Sequence[Genotype]) -> Walk:
        """Log-probabilities of given genotypes, with gradients."""
        genes = torch.tensor(genotypes)
        return self._walk(len(genotypes), lambda position, _: genes[:, position])

    @torch.no_grad()
    def sample(self, n: int, rng: np.random.Generator) -> Walk:
        """``n`` sequences drawn from the policy; not all need be architectures."""
        uniform = torch.from_numpy(rng.random((n, self._n_positions)))

        def pick(position: int, log_probabilities: Tensor) -> Tensor:
            sums = log_probabilities.double().exp().cumsum(1)[:, :-1]
            return (sums <= uniform[:, position : position + 1]).sum(1)

        return self._walk(n, pick)

    @torch.no_grad()
    def greedy(self) -> Genotype:
        """The sequence that takes the likeliest option at every step; it need not be an architecture."""
        return tuple(self._walk(1, lambda _, table: table.argmax(1)).genes[0].tolist())

    def skip_logits(self, earlier: Tensor, state: Tensor) -> Tensor:
        """Of ``P(j feeds i)``: anchor states (n, j, hidden) and the present one (n, hidden) give (n, j)."""
        mixed = torch.tanh(self.previous(earlier) + self.current(state).unsqueeze(1))
        logits: Tensor = self.anchor(mixed).squeeze(-1)
        return logits

    def _walk(self, n: int, pick: Pick) -> Walk:
        states = [(torch.zeros(n, self.hidden), torch.zeros(n, self.hidden)) for _ in self.cells]
        signal, anchors = self.start.expand(n, -1), list[Tensor]()
        genes: dict[int, Tensor] = {}
        log_probabilities, entropies = torch.zeros(n), torch.zeros(n)
        for step in self.steps:
            output = signal
            for number, cell in enumerate(self.cells):
                states[number] = cell(output, states[number])
                output = states[number][0]
            tables = self._tables(step, output, anchors)
            for position, table in zip(step.positions, tables, strict=True):
                genes[position] = pick(position, table)
                log_probabilities = log_probabilities + table.gather(1, genes[position].unsqueeze(1)).squeeze(1)
                entropies = entropies - (table.exp() * table).sum(1)
            if step.kind is None:
                signal = _mean_of_chosen(anchors, [genes[position] for position in step.positions], output)
                anchors.append(output)
            else:
                signal = self.embeddings[step.kind](genes[step.positions[0]])
        order = range(self._n_positions)
        return Walk(torch.stack([genes[position] for position in order], 1), log_probabilities, entropies)

    def _tables(self, step: Step, output: Tensor, anchors: list[Tensor]) -> Iterable[Tensor]:
        """Log-probabilities (n, options) for each position of a step."""
        if step.kind is not None:
            return [functional.log_softmax(self._squash(self.heads[step.kind](output)), 1)]
        if not anchors:
            return []
        logits = self._squash(self.skip_logits(torch.stack(anchors, 1), output))
        return torch.stack([functional.logsigmoid(-logits), functional.logsigmoid(logits)], -1).unbind(1)


class Sampler:
    """Architectures of a space drawn from a controller, some at a time.

    Args:
        controller: the policy.
        space: what is drawn; invalid sequences are drawn again.
        rng: where the draws come from.
        n: sequences drawn at once.
    """

    def __init__(self, controller: Controller, space: SearchSpace, rng: np.random.Generator, *, n: int) -> None:
        self._controller, self._space, self._rng = controller, space, rng
        self._n = n
        self._drawn: list[Genotype] = []

    def draw(self) -> Genotype:
        """The next architecture; a uniform one if the policy has settled where nothing is valid."""
        n, tried = self._n, 0
        while not self._drawn and tried < MAX_TRIES:
            drawn = map(tuple, self._controller.sample(n, self._rng).genes.tolist())
            self._drawn = [genotype for genotype in drawn if self._space.is_valid(genotype)][::-1]
            n, tried = max(n, _CHUNK), tried + n
        return self._drawn.pop() if self._drawn else self._space.sample(self._rng)

    def forget(self) -> None:
        """Drop what was drawn: the policy has changed."""
        self._drawn = []


def plan(space: SearchSpace) -> tuple[list[Step], list[int]]:
    """Steps of the recurrence over a space, and the number of options of each kind of decision.

    Raises:
        OptionError: if the skips of a layered space are not one for each earlier layer.
    """
    decisions: Sequence[Hashable] = getattr(space, "decisions", range(len(space.choices)))
    kinds: dict[Hashable, int] = {}
    sizes: list[int] = []
    steps: list[Step] = []
    for layer in _layers(decisions, space.name):
        for position in layer.plain:
            kind = kinds.setdefault((decisions[position], space.choices[position]), len(sizes))
            sizes += [space.choices[position]] if kind == len(sizes) else []
            steps.append(Step((position,), kind))
        if SKIP in decisions:
            steps.append(Step(tuple(layer.skips), None))
    return steps, sizes


class _Layer(NamedTuple):
    plain: list[int]
    skips: list[int]


def _layers(decisions: Sequence[Hashable], space: str) -> list[_Layer]:
    """Positions of each layer, which ends with its skips or where a kind comes again; one layer if nothing skips."""
    if SKIP not in decisions:
        return [_Layer(list(range(len(decisions))), [])]
    layers = [_Layer([], [])]
    for position, decision in enumerate(decisions):
        if decision == SKIP:
            layers[-1].skips.append(position)
            continue
        if layers[-1].skips or any(decisions[known] == decision for known in layers[-1].plain):
            layers.append(_Layer([], []))
        layers[-1].plain.append(position)
    for number, layer in enumerate(layers):
        if len(layer.skips) != number:
            raise OptionError(
                f"layer {number} of {space} has {len(layer.skips)} skip decisions; anchor points need one for each "
                f"earlier layer, {number}"
            )
    return layers


def _mean_of_chosen(anchors: list[Tensor], chosen: list[Tensor], like: Tensor) -> Tensor:
    """Mean over the chosen anchor states, (n, hidden); zeros where none is chosen."""
    if not anchors:
        return torch.zeros_like(like)
    weights = torch.stack(chosen, 1).to(like.dtype).unsqueeze(-1)
    return (torch.stack(anchors, 1) * weights).sum(1) / weights.sum(1).clamp(min=1)
