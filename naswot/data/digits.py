"""The embedded default: the handwritten digits that scikit-learn ships, so that nothing need be downloaded.

Paper: Alpaydin and Kaynak, Cascading Classifiers, Kybernetika 34, 1998 (UCI Optical Recognition of Handwritten Digits).
The split is this project's own: every fifth image of each class, in an order given by hashes, is a test image.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from naswot.data import register_data
from naswot.data.images import ImageSet, resize
from naswot.errors import OptionError
from naswot.seeding import derive_seed


@register_data
def digits(
    root: str | os.PathLike[str] | None = None,  # noqa: ARG001  (every loader takes it; these images are embedded)
    *,
    split: str = "train",
    size: int | None = None,
    channels: int = 3,
) -> ImageSet:
    """Handwritten digits: 1,438 training and 359 test images in 10 classes, 8 x 8 enlarged.

    Args:
        root: not needed.
        split: ``"train"`` or ``"test"``.
        size: height and width, bilinear from 8 x 8; None gives 16.
        channels: 3 repeats the grey value, so that networks for colour images take it; or 1.
    Raises:
        OptionError: if ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise OptionError(f"channels {channels} is not possible for digits: take 1 or 3")
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = resize(torch.from_numpy(raw.images / 16.0).float().unsqueeze(1), size or 16)
    labels = torch.from_numpy(raw.target).to(torch.int64)
    is_test = _test_part(labels)
    train = images[~is_test].double()
    chosen = is_test if split == "test" else ~is_test
    return ImageSet(
        name="digits",
        images=images[chosen].repeat(1, channels, 1, 1),
        labels=labels[chosen],
        n_classes=10,
        mean=(float(train.mean()),) * channels,
        std=(float(train.std()),) * channels,
        class_names=tuple(str(digit) for digit in range(10)),
        split=split,
    )


def _test_part(labels: Tensor) -> Tensor:
    """Which images are test images, (M,) bool; from hashes, so that no library's generator can change it."""
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = sorted(torch.nonzero(labels == label).flatten().tolist(), key=lambda i: derive_seed("digits", i))
        is_test[members[: round(len(members) / 5)]] = True
    return is_test
