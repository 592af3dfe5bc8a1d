"""Encoder, predictor and decoder of neural architecture optimisation; see ``nao.py`` for paper and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from naswot.seeding import seeded
from naswot.types import Genotype


class Code(NamedTuple):
    """Continuous form of n architectures of L positions.

    Args:
        outputs: (n, L, hidden), each of length 1.
        summary: (n, hidden), their mean brought to length 1; what the predictor reads.
    """

    outputs: Tensor
    summary: Tensor


@dataclass(frozen=True)
class Sizes:
    """Sizes of the three parts.

    Args:
        embedding: of a token at the encoder.
        hidden: units of both LSTMs.
        mlp_layers: hidden layers of the predictor.
        mlp_hidden: units of each.
        dropout: share of the predictor's units that are dropped in training.
    """

    embedding: int = 48
    hidden: int = 96
    mlp_layers: int = 3
    mlp_hidden: int = 200
    dropout: float = 0.1


@dataclass(frozen=True)
class Training:
    """How the three parts are trained together.

    Args:
        epochs: passes over the pool.
        batch: architectures of one step.
        learning_rate: of Adam.
        weight_decay: of Adam.
        clip: largest norm of the gradient.
        tradeoff: weight of the predictor's squared error; the decoder's loss has the rest.
    """

    epochs: int = 1000
    batch: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 5.0
    tradeoff: float = 0.8


class NAOModel(nn.Module):
    """LSTM encoder, predictor, and LSTM decoder with attention, over one token for each position and option.

    The decoder starts from the summary (as both states) and attends to the encoder's outputs. At each position only
    the options that it has can be decoded.

    Args:
        choices: number of options at each position.
        sizes: of the parts.
        seed: of the weights.
    """

    mask: Tensor
    offsets: Tensor

    def __init__(self, choices: Sequence[int], sizes: Sizes, *, seed: int) -> None:
        super().__init__()
        n, hidden = sum(choices), sizes.hidden
        widths = [hidden, *[sizes.mlp_hidden] * sizes.mlp_layers]
        with seeded(seed):
            self.embedding = nn.Embedding(n, sizes.embedding)
            self.encoder = nn.LSTM(sizes.embedding, hidden, batch_first=True)
            self.predictor = nn.Sequential(*_layers(widths, sizes.dropout), nn.Linear(widths[-1], 1), nn.Sigmoid())
            self.written = nn.Embedding(n + 1, hidden)  # what was decoded before; the last row: nothing yet
            self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
            self.mix = nn.Linear(2 * hidden, hidden)
            self.head = nn.Linear(hidden, n)
        offsets = torch.tensor([0, *choices]).cumsum(0)
        tokens = torch.arange(n)
        allowed = (tokens >= offsets[:-1, None]) & (tokens < offsets[1:, None])  # (L, tokens)
        self.register_buffer("offsets", offsets[:-1])
        self.register_buffer("mask", torch.zeros(len(choices), n).masked_fill(~allowed, -torch.inf))

    def encode(self, genes: Tensor) -> Code:
        """Code of genes (n, L) int64."""
        outputs, _ = self.encoder(self.embedding(genes + self.offsets))
        return summarised(outputs)

    def predict(self, summary: Tensor) -> Tensor:
        """Predicted scaled value in (0, 1), (n,)."""
        values: Tensor = self.predictor(summary).squeeze(1)
        return values

    def log_probabilities(self, code: Code, genes: Tensor) -> Tensor:
        """Log-probability of every token at every position, (n, L, tokens), given the genes before it."""
        tokens = genes + self.offsets
        nothing = torch.full_like(tokens[:, :1], self.written.num_embeddings - 1)
        return self._read(code, torch.cat([nothing, tokens[:, :-1]], 1), _initial(code), self.mask)[0]

    @torch.no_grad()
    def decode(self, code: Code) -> Tensor:
        """Genes (n, L) int64, at each position the most probable given those before."""
        state, tokens = _initial(code), torch.full((len(code.summary), 1), self.written.num_embeddings - 1)
        genes = []
        for position, offset in enumerate(self.offsets):
            table, state = self._read(code, tokens, state, self.mask[position])
            tokens = table.argmax(2)
            genes.append(tokens - offset)
        return torch.cat(genes, 1)

    def _read(
        self, code: Code, tokens: Tensor, state: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.decoder(self.written(tokens), state)
        attention = (outputs @ code.outputs.transpose(1, 2)).softmax(2)
        mixed = torch.tanh(self.mix(torch.cat([attention @ code.outputs, outputs], 2)))
        return functional.log_softmax(self.head(mixed) + mask, 2), state

    def ascend(self, genes: Tensor, step: float) -> tuple[Code, Tensor]:
        """Codes moved along the gradient of the predicted value by the encoder's outputs.

        Args:
            genes: (n, L) int64.
            step: lambda, how far.
        Returns:
            The new code, and the values predicted before, (n,).
        """
        code = self.encode(genes)
        values = self.predict(code.summary)
        (gradient,) = torch.autograd.grad(values.sum(), code.outputs)
        return summarised((code.outputs + step * gradient).detach()), values.detach()

    def fit(self, genes: Tensor, values: Tensor, training: Training, *, seed: int) -> None:
        """Train all parts and leave them in evaluation mode.

        Args:
            genes: (n, L) int64.
            values: (n,) scaled to [0, 1].
            training: how.
            seed: of order and dropout.
        """
        optimizer = torch.optim.Adam(self.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
        self.train()
        with seeded(seed):
            for _ in range(training.epochs):
                for chosen in torch.randperm(len(genes)).split(training.batch):
                    optimizer.zero_grad()
                    self.loss(genes[chosen], values[chosen], training.tradeoff).backward()
                    nn.utils.clip_grad_norm_(self.parameters(), training.clip)
                    optimizer.step()
        self.eval()

    def loss(self, genes: Tensor, values: Tensor, tradeoff: float) -> Tensor:
        """``tradeoff`` of the squared error and the rest of the negative log-likelihood of a token."""
        code = self.encode(genes)
        error = functional.mse_loss(self.predict(code.summary), values)
        tokens = (genes + self.offsets).unsqueeze(2)
        likelihood = self.log_probabilities(code, genes).gather(2, tokens).mean()
        return tradeoff * error - (1 - tradeoff) * likelihood


def summarised(outputs: Tensor) -> Code:
    """Code of outputs of any length."""
    outputs = functional.normalize(outputs, dim=2)
    return Code(outputs, functional.normalize(outputs.mean(1), dim=1))


def genotypes_of(genes: Tensor) -> list[Genotype]:
    """Rows of genes (n, L) as genotypes."""
    return [tuple(row) for row in genes.tolist()]


def _initial(code: Code) -> tuple[Tensor, Tensor]:
    return code.summary.unsqueeze(0), code.summary.unsqueeze(0)


def _layers(widths: Sequence[int], dropout: float) -> Iterator[nn.Module]:
    for before, after in pairwise(widths):
        yield from (nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
