"""Language models from scratch: stochastic gradient descent that begins to average when it no longer improves.

Papers: Merity et al., Regularizing and Optimizing LSTM Language Models, ICLR 2018, arXiv:1708.02182 (NT-ASGD, lengths
drawn at random); Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, appendix A.1.2,
whose constants are the defaults. Original code: github.com/quark0/darts, ``rnn/train.py``. Differences: a loss that is
no number ends the training instead of going back; a perplexity is taken over all tokens that are foretold.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from naswot.data.text import Corpus, Text
from naswot.errors import DivergedError, OptionError
from naswot.preserve import in_mode
from naswot.seeding import derive_seed, numpy_generator, seeded
from naswot.spaces._recurrent_network import Passage, Reading

BPTT: Final = 35
"""Tokens through which a gradient goes back."""
EVALUATION_ROWS: Final = 10
"""Pieces of a text that are read side by side where nothing is learned from it."""
_SHORT: Final = 0.05  # share of passages that are half as long
_SPREAD: Final = 5.0  # standard deviation of their length
_SHORTEST, _LONGER = 5, 20
_OVERFLOW: Final = 700.0  # nats whose exponential is hardly a number of 64 bits


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe:
    """How a language model is trained.

    Args:
        epochs: passes over the text.
        batch_size: pieces of the text that are read side by side, N.
        bptt: mean number of tokens of a passage; the learning rate of each is in proportion to its length.
        learning_rate: of a passage of that length.
        clip_norm: largest norm of the gradient.
        weight_decay: of SGD.
        beta: of the squared change of the states from token to token.
        patience: averaging begins when the validation loss is above the least of all but so many epochs.
    Raises:
        OptionError: for numbers below 1, or no positive learning rate.
    """

    epochs: int = 8_000
    batch_size: int = 64
    bptt: int = BPTT
    learning_rate: float = 20.0
    clip_norm: float = 0.25
    weight_decay: float = 8e-7
    beta: float = 1e-3
    patience: int = 5

    def __post_init__(self) -> None:
        counts = (self.epochs, self.batch_size, self.bptt, self.patience)
        if min(counts) < 1 or not (self.learning_rate > 0.0 and self.clip_norm > 0.0):
            raise OptionError(
                "expected epochs, batch_size, bptt and patience of at least 1 and a learning_rate and clip_norm above "
                f"0, but got {counts}, {self.learning_rate} and {self.clip_norm}"
            )


@dataclass(frozen=True)
class LanguageResult:
    """What a training reached.

    Args:
        valid_perplexity: of the best epoch, whose weights the model has now.
        test_perplexity: of these weights, measured once.
        epoch: the best one, from 1.
        averaged_from: the epoch, from 1, since which weights are averaged; None: never.
        history: one mapping for each epoch: ``epoch``, ``train_loss`` and ``valid_loss`` (nats), ``valid_perplexity``,
            and ``averaged`` for whether the validation saw averaged weights.
    """

    valid_perplexity: float
    test_perplexity: float
    epoch: int
    averaged_from: int | None
    history: tuple[Mapping[str, Any], ...]


def ignore(row: Mapping[str, Any]) -> None:
    """Take what an epoch measured, and do nothing."""


def train_language_model(
    model: nn.Module,
    corpus: Corpus,
    recipe: LanguageRecipe | None = None,
    *,
    seed: int = 0,
    on_epoch: Callable[[Mapping[str, Any]], None] = ignore,
) -> LanguageResult:
    """Train a language model in place; it ends with the weights of the epoch that was best on the validation part.

    Args:
        model: such as the space ``ptb_rnn`` builds, with the vocabulary of the corpus; trained where it lives.
        corpus: what it learns from, what the epoch is chosen by, and what is looked at once at the end.
        recipe: how; None: that of the paper.
        seed: lengths of the passages, and everything random in the model.
        on_epoch: called after each epoch.
    Raises:
        OptionError: if a part holds too few tokens.
        DivergedError: if the training loss is not finite.
    """
    how = recipe or LanguageRecipe()
    device = next(model.parameters()).device
    tokens = corpus.train.rows(how.batch_size).to(device)
    optimizer = torch.optim.SGD(model.parameters(), how.learning_rate, weight_decay=how.weight_decay)
    averaged: AveragedModel | None = None
    averaged_from, best, kept = None, 0, copy.deepcopy(model.state_dict())
    history: list[dict[str, Any]] = []
    with seeded(derive_seed(seed, "language model")):
        for epoch in range(1, how.epochs + 1):
            loss = _train_epoch(model, tokens, optimizer, averaged, how, epoch, seed)
            judged: nn.Module = model if averaged is None else averaged.module
            found = evaluate_language(judged, corpus.valid)
            history.append(
                {
                    "epoch": epoch,
                    "train_loss": loss,
                    "valid_loss": _finite(found["loss"], "validation", epoch, how),
                    "valid_perplexity": found["perplexity"],
                    "averaged": averaged is not None,
                }
            )
            losses = [row["valid_loss"] for row in history]
            if not best or losses[-1] < losses[best - 1]:
                best, kept = epoch, copy.deepcopy(judged.state_dict())
            if averaged is None and is_non_monotone(losses, how.patience):
                averaged, averaged_from = AveragedModel(model), epoch + 1
            on_epoch(history[-1])
        model.load_state_dict(kept)
        test = evaluate_language(model, corpus.test, rows=1)["perplexity"]
    return LanguageResult(history[best - 1]["valid_perplexity"], test, best, averaged_from, tuple(history))


def is_non_monotone(losses: list[float], patience: int) -> bool:
    """Whether the last loss is above one of more than ``patience`` epochs before it."""
    *before, last = losses
    return len(before) > patience and last > min(before[:-patience])


def passages(length: int, bptt: int, *, seed: int, epoch: int) -> Iterator[slice]:
    """The parts in which a text of some length is read in an epoch; each begins where the one before ends.

    Their lengths are normal around ``bptt``, or around half of it for one in twenty, at least 5 and at most 20 above.

    Args:
        length: tokens of a row; the last one is only foretold.
        bptt: mean length.
        seed: of the draw.
        epoch: another draw for each.
    """
    rng, start = numpy_generator(derive_seed(seed, "passages", epoch)), 0
    while start < length - 1:
        mean = bptt / 2 if rng.random() < _SHORT else bptt
        n = min(max(min(_SHORTEST, bptt), int(rng.normal(mean, _SPREAD))), bptt + _LONGER)
        yield slice(start, min(start + n, length - 1))
        start += n


def _train_epoch(
    model: nn.Module,
    tokens: Tensor,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel | None,
    how: LanguageRecipe,
    epoch: int,
    seed: int,
) -> float:
    """Mean training loss of an epoch without regularisation, nats."""
    model.train()
    state, total = None, 0.0
    for part in passages(tokens.shape[1], how.bptt, seed=seed, epoch=epoch):
        n = part.stop - part.start
        reading: Reading = model(Passage(tokens[:, part], state))
        loss = foretelling_loss(reading, tokens[:, part.start + 1 : part.stop + 1])
        value = _finite(float(loss.detach()), "training", epoch, how)
        optimizer.zero_grad(set_to_none=True)
        (loss + how.beta * restlessness(reading)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), how.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * n / how.bptt
        optimizer.step()
        if averaged is not None:
            averaged.update_parameters(model)
        state, total = reading.states[:, -1].detach(), total + n * value
    return total / (tokens.shape[1] - 1)


def _finite(loss: float, what: str, epoch: int, how: LanguageRecipe) -> float:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the training diverged: the {what} loss is {loss} in epoch {epoch} of {how.epochs}; take a smaller "
            f"learning_rate than {how.learning_rate:g}, or a smaller clip_norm than {how.clip_norm:g}"
        )
    return loss


def foretelling_loss(reading: Reading, targets: Tensor) -> Tensor:
    """() mean cross-entropy of each next token, nats.

    Args:
        reading: of a passage.
        targets: (N, T) int64, the token behind each.
    """
    return F.cross_entropy(reading.logits.flatten(0, 1), targets.flatten())


def restlessness(reading: Reading) -> Tensor:
    """() mean squared change of the states from one token to the next; 0 for a single token."""
    change = reading.states[:, 1:] - reading.states[:, :-1]
    return change.square().mean() if change.numel() else change.sum()


@torch.no_grad()
def evaluate_language(
    model: nn.Module, text: Text, *, rows: int = EVALUATION_ROWS, bptt: int = BPTT
) -> dict[str, float]:
    """How well a model foretells a text, in evaluation mode, states carried along.

    Args:
        model: its modes are put back.
        text: all of it, but for what is left over by the rows.
        rows: pieces that are read side by side, fewer if the text is short; each begins with a state of zeros.
        bptt: tokens that are read at a time, which changes nothing but memory.
    Returns:
        ``loss`` in nats for each token, ``perplexity``, its exponential, and ``accuracy``, 100 / perplexity: the
        probability given to the right token in percent, geometric mean; higher is better.
    """
    tokens = text.rows(max(1, min(rows, len(text) // 2))).to(next(model.parameters()).device)
    n, total, state = tokens.shape[1] - 1, 0.0, None
    with in_mode(model, "eval"):
        for start in range(0, n, bptt):
            stop = min(start + bptt, n)
            reading: Reading = model(Passage(tokens[:, start:stop], state))
            total += float(foretelling_loss(reading, tokens[:, start + 1 : stop + 1])) * (stop - start)
            state = reading.states[:, -1]
    loss = total / n
    perplexity = math.exp(loss) if loss < _OVERFLOW else math.inf
    return {"accuracy": 100.0 * math.exp(-loss), "loss": loss, "perplexity": perplexity}
