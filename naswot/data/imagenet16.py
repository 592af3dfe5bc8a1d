"""ImageNet16-120: ImageNet at 16 x 16, the first 120 classes, as NAS-Bench-201 uses it.

Papers: Chrabaszcz et al., A Downsampled Variant of ImageNet, arXiv:1707.08819; Dong and Yang, NAS-Bench-201, ICLR 2020,
arXiv:2001.00326. Original code: D-X-Y/AutoDL-Projects (file layout and normalisation constants).
Besides the official ten training files a single ``train_data`` is read. ``val_data`` is the test split here;
NAS-Bench-201 halves it into validation and test.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from naswot.data import register_data
from naswot.data._pickled import notes_on_files, read_images
from naswot.data._roots import find_files
from naswot.data.images import ImageSet, resize
from naswot.errors import DataError, OptionError

_FOLDERS = ("ImageNet16", "imagenet16", "tinyimagenet16-120")
_TRAIN = tuple(f"train_data_batch_{i}" for i in range(1, 11))
_N_120 = {"train": 151_700, "test": 6_000}
_MEAN = (122.68 / 255, 116.66 / 255, 104.01 / 255)
_STD = (63.22 / 255, 61.26 / 255, 65.09 / 255)


@register_data
def imagenet16(
    root: str | os.PathLike[str] | None = None,
    *,
    split: str = "train",
    size: int | None = None,
    n_classes: int = 120,
) -> ImageSet:
    """ImageNet16-120: 151,700 training and 6,000 validation images of 16 x 16 in 120 classes.

    Args:
        root: the folder ``ImageNet16`` or one that holds it.
        split: ``"train"`` or ``"test"`` (``val_data``).
        size: height and width to resize to; None leaves 16.
        n_classes: keep the images with labels 1..n_classes, as 0..n_classes-1.
    Raises:
        DataError: if no file is found or one is damaged.
    """
    if not 1 <= n_classes <= 1000:
        raise OptionError(f"n_classes {n_classes} lies outside 1..1000")
    files = (*_TRAIN, "train_data") if split == "train" else ("val_data",)
    paths = find_files("imagenet16", root, folders=_FOLDERS, files=files)
    batches = [path for path in paths if path.name in _TRAIN] or paths  # the ten files win over a single one
    parts = [_kept(*read_images(p, side=16, labels_key="labels", labels_range=(1, 1000)), n_classes) for p in batches]
    images, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    if len(images) == 0:
        raise DataError(f"{batches[0]} holds no image with a label in 1..{n_classes}")
    names = [path.name for path in batches]
    expected = _TRAIN if names[0] in _TRAIN else names
    is_standard = n_classes == 120
    return ImageSet(
        name="imagenet16",
        images=resize(images, size),
        labels=labels,
        n_classes=n_classes,
        mean=_MEAN,
        std=_STD,
        split=split,
        notes=notes_on_files(names, expected, len(images), _N_120[split] if is_standard else len(images)),
    )


def _kept(images: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    keep = labels <= n_classes
    return images[keep], labels[keep] - 1
