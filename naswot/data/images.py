"""A labelled set of images in memory, and how batches are drawn from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from naswot.errors import InputError, OptionError, ShapeError
from naswot.seeding import derive_seed, torch_generator
from naswot.types import Batch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """M images of one size with what is needed to normalise them.

    Args:
        name: registry name, such as ``"cifar10"``.
        images: (M, C, H, W), uint8 in 0..255 or floating point, 0..1 where there is no noise.
        labels: (M,) int64 in 0..n_classes-1, if known.
        n_classes: number of classes K, also where a subset does not show all of them.
        mean: mean of each channel on the scale 0..1.
        std: standard deviation of each channel on the scale 0..1.
        class_names: one per class, or empty.
        split: ``"train"`` or ``"test"``.
        notes: whole sentences on what differs from the official data.
    Raises:
        ShapeError: if the images have no four dimensions or labels, mean or std do not fit them.
        InputError: if a type or a label is out of range.
    """

    name: str
    images: Tensor = field(repr=False)
    labels: Tensor | None = field(repr=False)
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = field(default=(), repr=False)
    split: str = "train"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4:
            raise ShapeError(f"expected inputs of shape (N, C, H, W), but got {shape}")
        if len(self.mean) != shape[1] or len(self.std) != shape[1]:
            raise ShapeError(f"expected mean and std of {shape[1]} channels, but got {self.mean} and {self.std}")
        if self.images.dtype != torch.uint8 and not self.images.is_floating_point():
            raise InputError(f"expected images of type uint8 or floating point, but got {self.images.dtype}")
        if self.labels is not None:
            check_labels(self.labels, shape[0], self.n_classes)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        _, c, h, w = self.images.shape
        return c, h, w

    def batch(self, n: int, *, generator: torch.Generator) -> Batch:
        """``n`` distinct images drawn uniformly, normalised, with their labels.

        Args:
            n: batch size N.
            generator: where the draw comes from.
        Returns:
            Batch with inputs (N, C, H, W) float32.
        Raises:
            InputError: if the set holds fewer images.
        """
        if not 1 <= n <= len(self):
            raise InputError(
                f"a batch of {n} distinct images cannot be drawn: {self.name} ({self.split}) holds {len(self):,}; "
                f"take 1 to {len(self)}"
            )
        chosen = torch.randperm(len(self), generator=generator)[:n]
        return Batch(self.normalised(self.images[chosen]), None if self.labels is None else self.labels[chosen])

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """All images normalised, (M, C, H, W) float32, and their labels (M,) int64."""
        return self.normalised(self.images), self.labels

    def subset(self, indices: Sequence[int] | Tensor) -> ImageSet:
        """The images at ``indices``, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return dataclasses.replace(self, images=self.images[chosen], labels=labels)

    def partition(self, fraction: float, *, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
        """Two disjoint random parts that hold all images, such as training and validation.

        Args:
            fraction: share of the first part, strictly between 0 and 1.
            generator: where the draw comes from.
        Raises:
            OptionError: if a part would be empty.
        """
        n_first = round(fraction * len(self))
        if not 0 < n_first < len(self):
            raise OptionError(f"fraction {fraction} leaves a part of {len(self):,} images empty; take one in (0, 1)")
        order = torch.randperm(len(self), generator=generator)
        return self.subset(order[:n_first]), self.subset(order[n_first:])

    def normalised(self, images: Tensor) -> Tensor:
        """Images of this set, (N, C, H, W) on any device, as float32 of mean 0 and standard deviation 1."""
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        mean = torch.tensor(self.mean, dtype=torch.float32).view(-1, 1, 1) * scale
        std = torch.tensor(self.std, dtype=torch.float32).view(-1, 1, 1) * scale
        return (images.float() - mean.to(images.device)) / std.to(images.device)


def check_labels(labels: Tensor, n: int, n_classes: int) -> None:
    """Raise unless ``labels`` are (n,) int64 in 0..n_classes-1.

    Raises:
        ShapeError: if there are not ``n`` of them.
        InputError: if the type or a value is wrong.
    """
    if tuple(labels.shape) != (n,):
        raise ShapeError(f"expected labels of shape ({n},), but got {tuple(labels.shape)}")
    if labels.dtype != torch.int64:
        raise InputError(f"expected labels of type int64, but got {labels.dtype}")
    if n and (int(labels.min()) < 0 or int(labels.max()) >= n_classes):
        raise InputError(f"labels {int(labels.min())}..{int(labels.max())} lie outside 0..{n_classes - 1}")


def resize(images: Tensor, size: int | None) -> Tensor:
    """Images resized bilinearly to ``size`` x ``size`` (antialiased when shrinking), of the same type.

    Args:
        images: (M, C, H, W), uint8 or floating point.
        size: new height and width; None leaves them.
    """
    if size is None or tuple(images.shape[-2:]) == (size, size):
        return images
    parts = []
    for part in torch.split(images, 4096):  # bounds the float copy of a large uint8 set
        resized = functional.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        is_bytes = images.dtype == torch.uint8
        parts.append(resized.round_().clamp_(0, 255).to(torch.uint8) if is_bytes else resized.to(images.dtype))
    return torch.cat(parts)


def noisy(data: ImageSet, sd: float) -> ImageSet:
    """The same images with Gaussian noise, drawn once for each value; always the same for a data set and split.

    Args:
        data: the images.
        sd: standard deviation of the noise, where that of the images is 1; 0 gives ``data`` itself.
    Raises:
        OptionError: if it is negative or not finite.
    """
    if not 0 <= sd < math.inf:
        raise OptionError(f"noise {sd} is not possible: take a standard deviation from 0")
    if sd == 0:
        return data
    scale = 255.0 if data.images.dtype == torch.uint8 else 1.0
    drawn = torch.randn(data.images.shape, generator=torch_generator(derive_seed("noise", data.name, data.split)))
    spread = torch.tensor(data.std, dtype=torch.float32).view(-1, 1, 1) * sd
    note = f"Gaussian noise of standard deviation {sd:g} is added to the normalised images."
    return dataclasses.replace(data, images=data.images.float() / scale + spread * drawn, notes=(*data.notes, note))
