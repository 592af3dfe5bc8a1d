"""A few epochs of plain training, to see whether a score told the truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naswot.data.images import ImageSet
from naswot.errors import InputError
from naswot.logits import logits_of
from naswot.seeding import derive_seed, seeded, torch_generator


@dataclass(frozen=True)
class BriefTraining:
    """What a few epochs reached.

    Args:
        accuracy: on the held-out images after the last epoch, percent.
        loss: mean training loss of the last epoch, nats.
        epochs: number of epochs.
        seconds: wall-clock seconds, evaluation included.
    """

    accuracy: float
    loss: float
    epochs: int
    seconds: float


def train_briefly(
    model: nn.Module,
    train: ImageSet,
    held_out: ImageSet,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    seed: int = 0,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> BriefTraining:
    """Train ``model`` in place by SGD (Nesterov 0.9, weight decay 5e-4, one cosine) and test it once at the end.

    Args:
        model: trained where it lives.
        train: training images with labels.
        held_out: images on which the accuracy is taken; nothing is selected by them.
        epochs: passes over the training images, at least 1.
        batch_size: N; a last smaller batch is left out unless it is the only one.
        learning_rate: at the start.
        seed: order of the images and everything random in the model.
        on_epoch: called with the number of each epoch, from 1, when it is over; must leave the model as it is.
    """
    start = time.perf_counter()
    device = next(model.parameters()).device
    images, labels = _labelled(train, device)
    batch_size = min(batch_size, len(labels))
    steps = len(labels) // batch_size
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    order = torch_generator(derive_seed(seed, "order"))
    loss_sum = 0.0
    with seeded(derive_seed(seed, "training")):
        for epoch in range(1, epochs + 1):
            model.train()
            loss_sum = 0.0
            for chosen in torch.randperm(len(labels), generator=order)[: steps * batch_size].split(batch_size):
                loss = F.cross_entropy(logits_of(model(images[chosen])), labels[chosen])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                loss_sum += loss.item()
            on_epoch(epoch)
        correct = accuracy(model, held_out)
    return BriefTraining(correct, loss_sum / steps, epochs, time.perf_counter() - start)


def accuracy(model: nn.Module, held_out: ImageSet, *, batch_size: int = 256) -> float:
    """Share of images whose largest logit is the right one, in evaluation mode, percent."""
    device = next(model.parameters()).device
    images, labels = _labelled(held_out, device)
    model.eval()
    with torch.no_grad():
        hits = [
            (logits_of(model(x)).argmax(dim=1) == y).sum()
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    return 100.0 * int(sum(hits)) / len(labels)


def _labelled(data: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = data.tensors()
    if labels is None:
        raise InputError(f"training needs labels, but {data.name} ({data.split}) has none")
    return images.to(device), labels.to(device)
