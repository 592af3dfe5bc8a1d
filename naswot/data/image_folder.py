"""Pictures in one folder per class, read with Pillow (pip extra ``images``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from naswot.data import register_data
from naswot.data._roots import base_folder
from naswot.data.images import ImageSet
from naswot.errors import DataError, OptionError, missing_package

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"})
_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, the usual choice for natural images
_STD = (0.229, 0.224, 0.225)


@register_data
def image_folder(
    root: str | os.PathLike[str] | None = None,
    *,
    split: str = "train",
    size: int | None = None,
    limit: int | None = None,
) -> ImageSet:
    """Pictures under ``root/class_name/``, or ``root/train/class_name/`` and ``root/test/`` (or ``val/``).

    Args:
        root: the folder that holds the class folders or the splits.
        split: ``"train"`` or ``"test"``; without folders of these names everything is training data.
        size: shorter side before the central square is cut out; None gives 32.
        limit: read at most so many pictures, taken in turn from the classes.
    Raises:
        DataError: if there are no pictures, or one is damaged.
        MissingPackageError: if Pillow is not installed.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"limit {limit} reads no picture: take at least 1")
    folder = _split_folder(base_folder("image_folder", root), split)
    classes = {path.name: _pictures(path) for path in _folders(folder)}
    classes = {name: paths for name, paths in classes.items() if paths}
    if not classes:
        raise DataError(f"image_folder: no pictures in folders like {folder / 'class_name' / 'picture.png'}")
    n_all = sum(len(paths) for paths in classes.values())
    chosen = sorted(islice(_in_turn(list(classes.values())), limit))
    pixels = torch.stack([_read(path, size or 32) for _, path in chosen])
    part = f"{len(chosen):,} pictures" if len(chosen) == n_all else f"{len(chosen):,} of {n_all:,} pictures"
    return ImageSet(
        name="image_folder",
        images=pixels,
        labels=torch.tensor([label for label, _ in chosen], dtype=torch.int64),
        n_classes=len(classes),
        mean=_MEAN,
        std=_STD,
        class_names=tuple(classes),
        split=split,
        notes=(f"{part} in {len(classes):,} classes were read from {folder}",),
    )


def _split_folder(base: Path, split: str) -> Path:
    # a folder "train" that holds pictures itself is a class (of vehicles), not a split
    names = {"train": ("train",), "test": ("test", "val")}[split]
    for name in names:
        if _folders(base / name):
            return base / name
    if split == "test":
        raise DataError(f"image_folder: {base} has no folder test or val with class folders; everything in it is train")
    return base


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def _pictures(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    return sorted(found, key=lambda path: path.as_posix())


def _in_turn(classes: list[list[Path]]) -> Iterator[tuple[int, Path]]:
    for turn in zip_longest(*classes):
        yield from ((label, path) for label, path in enumerate(turn) if path is not None)


def _read(path: Path, size: int) -> Tensor:
    """One picture as (3, size, size) uint8."""
    try:
        from PIL import Image
    except ImportError:
        raise missing_package("pillow", "images", "reading pictures") from None
    try:
        with Image.open(path) as picture:
            square = _centre_square(picture.convert("RGB"), size)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
        raise DataError(f"cannot read the picture {path}: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _centre_square(picture: Image, size: int) -> Image:
    from PIL.Image import Resampling

    width, height = picture.size
    scale = size / min(width, height)
    width, height = round(width * scale), round(height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.resize((width, height), Resampling.BILINEAR).crop((left, top, left + size, top + size))
