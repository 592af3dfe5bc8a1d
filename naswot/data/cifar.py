"""CIFAR-10 and CIFAR-100 from the official Python folders.

Paper: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. Layout: https://www.cs.toronto.edu/~kriz/cifar.html.
A folder that holds only some of the batches works and says so in ``notes``; checksums are not enforced.
"""

from __future__ import annotations

import os

import torch

from naswot.data import register_data
from naswot.data._pickled import notes_on_files, read_images, read_names
from naswot.data._roots import find_files
from naswot.data.images import ImageSet, resize

_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


@register_data
def cifar10(root: str | os.PathLike[str] | None = None, *, split: str = "train", size: int | None = None) -> ImageSet:
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 in 10 classes.

    Args:
        root: the folder ``cifar-10-batches-py`` or one that holds it.
        split: ``"train"`` or ``"test"``.
        size: height and width to resize to; None leaves 32.
    Raises:
        DataError: if no batch file is found or one is damaged.
    """
    return _cifar("cifar10", root, split, size, n_classes=10)


@register_data
def cifar100(root: str | os.PathLike[str] | None = None, *, split: str = "train", size: int | None = None) -> ImageSet:
    """CIFAR-100 with its fine labels: 50,000 training and 10,000 test images of 32 x 32 in 100 classes.

    Args:
        root: the folder ``cifar-100-python`` or one that holds it.
        split: ``"train"`` or ``"test"``.
        size: height and width to resize to; None leaves 32.
    Raises:
        DataError: if the file is not found or damaged.
    """
    return _cifar("cifar100", root, split, size, n_classes=100)


_FOLDER = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_FILES = {
    ("cifar10", "train"): _TRAIN,
    ("cifar10", "test"): ("test_batch",),
    ("cifar100", "train"): ("train",),
    ("cifar100", "test"): ("test",),
}
_LABELS_KEY = {"cifar10": "labels", "cifar100": "fine_labels"}
_META = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}
_MEAN = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}
_STD = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}


def _cifar(name: str, root: str | os.PathLike[str] | None, split: str, size: int | None, *, n_classes: int) -> ImageSet:
    expected = _FILES[name, split]
    paths = find_files(name, root, folders=(_FOLDER[name],), files=expected)
    key, labels_range = _LABELS_KEY[name], (0, n_classes - 1)
    parts = [read_images(path, side=32, labels_key=key, labels_range=labels_range) for path in paths]
    images = torch.cat([images for images, _ in parts])
    meta, names_key = _META[name]
    path = paths[0].with_name(meta)
    class_names = read_names(path, names_key) if path.is_file() else ()
    return ImageSet(
        name=name,
        images=resize(images, size),
        labels=torch.cat([labels for _, labels in parts]),
        n_classes=n_classes,
        mean=_MEAN[name],
        std=_STD[name],
        class_names=class_names,
        split=split,
        notes=notes_on_files([p.name for p in paths], expected, len(images), 50_000 if split == "train" else 10_000),
    )
