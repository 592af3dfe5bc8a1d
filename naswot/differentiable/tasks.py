"""What a supernet learns: batches for its weights, batches for its architecture, a loss, and how well it does."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naswot.data.images import ImageSet
from naswot.errors import OptionError
from naswot.logits import logits_of
from naswot.seeding import derive_seed, torch_generator
from naswot.supernet import MixedSupernet, Mixing
from naswot.training.augment import cutout, random_crop, random_flip
from naswot.training.checkpoint import digest_of_images
from naswot.training.evaluation import EVALUATION_BATCH, evaluate
from naswot.training.splits import LabelledImages, refuse_test_images

Pair = tuple[Any, Any]
"""Inputs and targets of a batch."""


class Task(ABC):
    """What is learned, and from what; batches follow from seed and number, so that nothing has to be kept to go on."""

    batch_size: int

    @property
    @abstractmethod
    def steps(self) -> int:
        """Batches of an epoch for the weights."""

    @property
    @abstractmethod
    def build(self) -> dict[str, Any]:
        """Options of the supernet that follow from the data, such as ``n_classes``."""

    @abstractmethod
    def train_batches(self, epoch: int) -> Iterator[Pair]:
        """Batches of an epoch, from 0, for the weights."""

    @abstractmethod
    def valid_batch(self, step: int) -> Pair:
        """Batch for the architecture of a step, counted over all epochs; all of them in turn."""

    @abstractmethod
    def fixed_batch(self) -> Pair:
        """A batch for the architecture that is always the same, to measure by."""

    @abstractmethod
    def loss(self, supernet: MixedSupernet, mixing: Mixing, batch: Pair) -> Tensor:
        """() mean loss of a batch, nats."""

    def reward(self, supernet: MixedSupernet, mixing: Mixing, batch: Pair) -> float:
        """How well the network does on one batch, higher is better, from 0 to 1: the inverse perplexity."""
        with torch.no_grad():
            return math.exp(-float(self.loss(supernet, mixing, batch)))

    @abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``accuracy`` (higher is better) and ``loss`` of a model on all that the architecture learns from."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Everything that determines the numbers."""


class ImageTask(Task):
    """Classification of images; those that the architecture learns from are never changed at random.

    Args:
        train: images for the weights.
        valid: other images for the architecture; the same where one level learns both.
        batch_size: N.
        seed: of the order, and of changes to the images.
        device: where the images lie.
        crop_padding: zeros around a training image, from which a window is cut at random.
        flip: mirror half of the training images.
        label_smoothing: of the loss.
        learns_architecture: whether batches of ``valid`` are learned from, and not only measured on.
    Raises:
        OptionError: for test images, or if a part that is learned from holds less than one batch.
    """

    def __init__(
        self,
        train: ImageSet,
        valid: ImageSet,
        *,
        batch_size: int = 64,
        seed: int = 0,
        device: str = "cpu",
        crop_padding: int = 0,
        flip: bool = False,
        label_smoothing: float = 0.0,
        learns_architecture: bool = True,
    ) -> None:
        for part, purpose in ((train, "weights"), (valid, "architecture")):
            refuse_test_images(part, "searched by")
            if len(part) < batch_size and (learns_architecture or part is train):
                raise OptionError(
                    f"expected at least one batch of {batch_size} images for the {purpose}, but that part of "
                    f"{part.name} holds {len(part)}; take a batch_size of at most {len(part)}, or another "
                    "valid_fraction"
                )
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.crop_padding, self.flip, self.label_smoothing = crop_padding, flip, label_smoothing
        self.cutout, self.cutout_probability = 0, 0.0
        self._sets = train, valid
        self._train, self._valid = LabelledImages(train, device), LabelledImages(valid, device)

    @property
    def steps(self) -> int:
        """Batches of an epoch for the weights; a last smaller one is left out."""
        return len(self._train) // self.batch_size

    @property
    def build(self) -> dict[str, Any]:
        """Number of classes, and of channels."""
        train = self._sets[0]
        return {"n_classes": train.n_classes, "in_channels": train.shape[0]}

    def train_batches(self, epoch: int) -> Iterator[Pair]:
        """Images (N, C, H, W), changed at random, and labels (N,)."""
        changes = torch_generator(derive_seed(self.seed, "augmentation", epoch))
        order = _order(len(self._train), self.seed, "order", epoch)[: self.steps * self.batch_size]
        for chosen in order.to(self.device).split(self.batch_size):
            images, labels = self._train.batch(chosen)
            yield self._changed(images, changes), labels

    def _changed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.crop_padding:
            images = random_crop(images, self.crop_padding, generator=generator)
        if self.flip:
            images = random_flip(images, generator=generator)
        if self.cutout and self.cutout_probability > 0.0:
            hit = torch.rand(len(images), 1, 1, 1, generator=generator) < self.cutout_probability
            images = torch.where(hit.to(images.device), cutout(images, self.cutout, generator=generator), images)
        return images

    def valid_batch(self, step: int) -> Pair:
        """Images (N, C, H, W) and labels (N,); a new order each time all were seen."""
        turn, number = divmod(step, len(self._valid) // self.batch_size)
        order = _order(len(self._valid), self.seed, "architecture order", turn)
        return self._valid.batch(order[number * self.batch_size :][: self.batch_size].to(self.device))

    def fixed_batch(self) -> Pair:
        """The first images of the validation part."""
        return self._valid.batch(slice(0, self.batch_size))

    def loss(self, supernet: MixedSupernet, mixing: Mixing, batch: Pair) -> Tensor:
        """Cross-entropy, smoothed as in training whatever the mode."""
        images, labels = batch
        return F.cross_entropy(logits_of(supernet(images, mixing)), labels, label_smoothing=self.label_smoothing)

    def reward(self, supernet: MixedSupernet, mixing: Mixing, batch: Pair) -> float:
        """Share of images whose largest logit is the right one."""
        images, labels = batch
        with torch.no_grad():
            return float((logits_of(supernet(images, mixing)).argmax(dim=1) == labels).float().mean())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy in percent and cross-entropy in nats on all validation images, in evaluation mode."""
        return evaluate(model, self._valid.batches(EVALUATION_BATCH))

    def describe(self) -> dict[str, object]:
        """Images and what is done to them."""
        train, valid = map(digest_of_images, self._sets)
        names = ("batch_size", "seed", "crop_padding", "flip", "label_smoothing")
        return {"images": self._sets[0].name, "train": train, "valid": valid} | {n: getattr(self, n) for n in names}


def _order(n: int, *parts: object) -> Tensor:
    return torch.randperm(n, generator=torch_generator(derive_seed(*parts)))
