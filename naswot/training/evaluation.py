"""Accuracy and loss on images that nothing is learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naswot.logits import logits_of
from naswot.preserve import in_mode

EVALUATION_BATCH: Final = 256
"""Images of a batch that nothing is learned from; accuracies do not depend on it."""


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, float]:
    """Share of images whose largest logit is the right one, and mean cross-entropy, in evaluation mode.

    Args:
        model: each module's mode is put back.
        batches: normalised images (N, C, H, W) and labels (N,) int64, where the model is.
        precision: context of the forward passes.
        total: adds the (3,) float64 of hits, losses in nats and images over all processes.
    Returns:
        ``accuracy`` in percent and ``loss`` in nats.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad(), in_mode(model, "eval"), precision():
        for x, y in batches:
            logits = logits_of(model(x)).float()
            hits = int((logits.argmax(dim=1) == y).sum())
            sums += torch.tensor([hits, F.cross_entropy(logits, y, reduction="sum").item(), len(y)])
    hits, loss, n = total(sums).tolist()
    return {"accuracy": 100.0 * hits / n, "loss": loss / n}
