"""Three parts of the images, to learn from, to choose by and to report on once; and batches of them on a device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from naswot.data.images import ImageSet
from naswot.errors import InputError, OptionError
from naswot.seeding import derive_seed, torch_generator


def three_way_split(data: ImageSet, *, valid_fraction: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Training and validation images out of the training part of some data; the test part is the third.

    Args:
        data: the training part.
        valid_fraction: share that is set aside for validation, strictly between 0 and 1.
        seed: which images these are.
    Returns:
        Images to learn from, and images to choose by.
    Raises:
        OptionError: if ``data`` are test images, or a part would be empty.
    """
    refuse_test_images(data, "split into training and validation images")
    generator = torch_generator(derive_seed(seed, "validation"))
    valid, train = data.partition(valid_fraction, generator=generator)
    return train, valid


def refuse_test_images(data: ImageSet, purpose: str) -> None:
    """Raise an OptionError if ``data`` are test images, which only :func:`~naswot.training.loop.test_accuracy` may see.

    Args:
        data: the images.
        purpose: what they would be used for, as a participle.
    """
    if data.split == "test":
        raise OptionError(
            f"test images of {data.name} cannot be {purpose}: nothing may be chosen by them; take the training part "
            "and set some of it aside by three_way_split, and test once at the end by test_accuracy"
        )


class LabelledImages:
    """Images on a device as their set holds them, so that bytes stay bytes; each batch is normalised when it is taken.

    Args:
        data: the set.
        device: where the images go.
    Raises:
        InputError: if there are no labels.
    """

    def __init__(self, data: ImageSet, device: torch.device | str) -> None:
        if data.labels is None:
            raise InputError(f"training needs labels, but {data.name} ({data.split}) has none")
        self._data = data
        self._images = data.images.to(device)
        self.labels = data.labels.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images (N, C, H, W) float32 and labels (N,) int64.

        Args:
            chosen: (N,) int64 on the device, or a slice.
        """
        return self._data.normalised(self._images[chosen]), self.labels[chosen]

    def batches(self, batch_size: int, *, share: int = 0, of: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, or a share of them: every ``of``-th from number ``share`` on."""
        for first in range(share, len(self), of * batch_size):
            yield self.batch(slice(first, first + of * batch_size, of))
