"""Three parts of the images: to learn from, to choose by, and to report on once."""

from __future__ import annotations

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


def labelled(data: ImageSet, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """All images, (M, C, H, W) float32 and normalised, and their labels (M,) int64, on a device.

    Raises:
        InputError: if there are no labels.
    """
    images, labels = data.tensors()
    if labels is None:
        raise InputError(f"training needs labels, but {data.name} ({data.split}) has none")
    return images.to(device), labels.to(device)
