"""What a supernet learns from text: to foretell each next token.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, appendix A.1.2. Original
code: github.com/quark0/darts, ``rnn/train_search.py``. Differences: all passages have one length, where one in twenty
of the original is half as long; the state of the validation text is not carried along, so that each batch stands for
itself; the loss of the architecture too has the regularisation of the states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from naswot.data.text import Text
from naswot.differentiable.tasks import Pair, Task
from naswot.errors import OptionError
from naswot.evaluate import batch_digest
from naswot.spaces._recurrent_network import Passage, Reading
from naswot.supernet import MixedSupernet, Mixing
from naswot.training.language import BPTT, EVALUATION_ROWS, evaluate_language, foretelling_loss, restlessness
from naswot.types import Batch


class TextTask(Task):
    """Language modelling, by gradients through ``bptt`` tokens at a time.

    A text is cut into ``batch_size`` pieces that are read side by side. In training the state after a passage is that
    with which the next one begins, and zeros at the begin of an epoch; batches for the architecture begin with zeros.

    Args:
        train: text for the weights.
        valid: other text for the architecture.
        batch_size: pieces N.
        bptt: tokens T of a passage.
        beta: of the squared change of the states from token to token, which is added to the loss in training.
        device: where the tokens lie.
        evaluation_rows: pieces into which the validation text is cut to measure.
    Raises:
        OptionError: for test text, parts of two vocabularies, or if a part holds less than one batch.
    """

    def __init__(
        self,
        train: Text,
        valid: Text,
        *,
        batch_size: int = 256,
        bptt: int = BPTT,
        beta: float = 1e-3,
        device: str = "cpu",
        evaluation_rows: int = EVALUATION_ROWS,
    ) -> None:
        if min(batch_size, bptt, evaluation_rows) < 1 or not beta >= 0.0:
            raise OptionError(
                "expected batch_size, bptt and evaluation_rows of at least 1 and beta of at least 0, but got "
                f"{batch_size}, {bptt}, {evaluation_rows} and {beta}"
            )
        for part, purpose in ((train, "weights"), (valid, "architecture")):
            _check(part, purpose, batch_size, bptt)
        if train.vocabulary != valid.vocabulary:
            raise OptionError(
                f"expected parts with one vocabulary, but that of {train.name} ({len(train.vocabulary)} words) is not "
                f"that of {valid.name} ({len(valid.vocabulary)} words); take both from one get_corpus"
            )
        self.batch_size, self.bptt, self.beta, self.evaluation_rows = batch_size, bptt, beta, evaluation_rows
        self._texts = train, valid
        self._train, self._valid = (part.rows(batch_size).to(device) for part in (train, valid))

    @property
    def steps(self) -> int:
        """Batches of an epoch for the weights; a last shorter passage is left out."""
        return self._n_passages(self._train)

    @property
    def build(self) -> dict[str, Any]:
        """Number of words."""
        return {"n_classes": len(self._texts[0].vocabulary)}

    def train_batches(self, epoch: int) -> Iterator[Pair]:  # noqa: ARG002  (a text has one order)
        """Passages (N, T), each with the state that :meth:`loss` left behind the one before, and targets (N, T)."""
        state: Tensor | None = None
        for number in range(self.steps):
            passage, targets = self._passage(self._train, number)
            passage.state = state
            yield passage, targets
            state = passage.after

    def valid_batch(self, step: int) -> Pair:
        """Passage (N, T) and targets (N, T)."""
        return self._passage(self._valid, step % self._n_passages(self._valid))

    def fixed_batch(self) -> Pair:
        """The first passage of the validation text."""
        return self._passage(self._valid, 0)

    def loss(self, supernet: MixedSupernet, mixing: Mixing, batch: Pair) -> Tensor:
        """Cross-entropy, with the regularisation of the states in training; leaves the state behind in the passage."""
        passage, targets = batch
        reading: Reading = supernet(passage, mixing)
        passage.after = reading.states[:, -1].detach()
        loss = foretelling_loss(reading, targets)
        return loss + self.beta * restlessness(reading) if supernet.training else loss

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``loss`` (nats), ``perplexity`` and ``accuracy`` (100 / perplexity, percent) on all validation text."""
        return evaluate_language(model, self._texts[1], rows=self.evaluation_rows, bptt=self.bptt)

    def describe(self) -> dict[str, object]:
        """The texts and how they are read."""
        train, valid = (batch_digest(Batch(part.tokens)) for part in self._texts)
        names = ("batch_size", "bptt", "beta", "evaluation_rows")
        words = {"text": self._texts[0].name, "train": train, "valid": valid, "words": self.build["n_classes"]}
        return words | {name: getattr(self, name) for name in names}

    def _n_passages(self, rows: Tensor) -> int:
        return (rows.shape[1] - 1) // self.bptt

    def _passage(self, rows: Tensor, number: int) -> tuple[Passage, Tensor]:
        start = number * self.bptt
        return Passage(rows[:, start : start + self.bptt]), rows[:, start + 1 : start + self.bptt + 1]


def _check(part: Text, purpose: str, batch_size: int, bptt: int) -> None:
    if part.split == "test":
        raise OptionError(
            f"test text of {part.name} cannot be searched by: nothing may be chosen by it; take the parts train and "
            "valid, and test once at the end by train_language_model"
        )
    if len(part) < batch_size * (bptt + 1):
        raise OptionError(
            f"expected at least one batch of {batch_size} x {bptt} tokens and one more in each row for the {purpose}, "
            f"but {part.name} ({part.split}) holds {len(part):,}; take a smaller batch_size or bptt"
        )
