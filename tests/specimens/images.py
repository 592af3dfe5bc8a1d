"""CIFAR, ImageNet16 and pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from specimens._base import of_images


def write_batch(path: Path, side: int, labels: str, n: int = 4) -> Path:
    """A batch of CIFAR or ImageNet16, protocol 2 as the official ones."""
    pixels = np.arange(n * 3 * side * side, dtype=np.uint8).reshape(n, -1)
    content = {"batch_label": "batch", labels: list(range(1, n + 1)), "data": pixels, "filenames": ["a.png"] * n}
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


@of_images("cifar10", "pickle")
def cifar10_folder(folder: Path) -> Path:
    path = folder / "cifar-10-batches-py"
    write_batch(path / "data_batch_1", 32, "labels")
    (path / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
    return path


@of_images("cifar100", "pickle")
def cifar100_folder(folder: Path) -> Path:
    path = folder / "cifar-100-python"
    write_batch(path / "train", 32, "fine_labels")
    (path / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a"] * 100}, protocol=2))
    return path


@of_images("imagenet16", "pickle")
def imagenet16_folder(folder: Path) -> Path:
    return write_batch(folder / "ImageNet16" / "train_data_batch_1", 16, "labels").parent


def write_pictures(folder: Path, suffix: str) -> Path:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "pictures" / name / f"1.{suffix}")
    return folder / "pictures"


for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm"):
    of_images("image_folder", suffix)(lambda folder, suffix=suffix: write_pictures(folder, suffix))
