"""The pickled image batches that CIFAR and ImageNet16 share: rows of C*H*W bytes, planes in order R, G, B."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naswot.data._safe_pickle import load_pickle
from naswot.errors import DataError

_WORDS = {2: "two", 3: "three", 5: "five", 10: "ten"}


def read_mapping(path: Path) -> dict[str, Any]:
    """A pickled dictionary with its keys as text, whichever Python wrote it.

    Raises:
        DataError: if the file holds something else.
    """
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, but a dictionary with the images was expected")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def read_images(path: Path, *, side: int, labels_key: str, labels_range: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images and labels of one batch file.

    Args:
        path: the pickle.
        side: height and width of an image.
        labels_key: key of the labels.
        labels_range: lowest and highest label there may be.
    Returns:
        (M, 3, side, side) uint8 and (M,) int64, the labels as they stand in the file.
    Raises:
        DataError: if a key is missing or an array does not fit.
    """
    content = read_mapping(path)
    missing = [key for key in ("data", labels_key) if key not in content]
    if missing:
        raise DataError(f"{path} has no key {missing[0]!r}, only {', '.join(sorted(content))}")
    data, low, high = content["data"], *labels_range
    width = 3 * side * side
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != width:
        kind = f"{data.shape} {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{path}: expected 'data' of shape (N, {width}) uint8, but got {kind}")
    labels = _labels(path, content[labels_key])
    if len(labels) != len(data) or len(data) == 0:
        raise DataError(f"{path} holds {len(data):,} images and {len(labels):,} labels")
    if labels.min() < low or labels.max() > high:
        raise DataError(f"{path}: labels {labels.min()}..{labels.max()} lie outside {low}..{high}")
    return torch.from_numpy(data).view(-1, 3, side, side), torch.from_numpy(labels)


def read_names(path: Path, key: str) -> tuple[str, ...]:
    """Names of the classes from a ``meta`` file.

    Raises:
        DataError: if the file is damaged or has no such list.
    """
    names = read_mapping(path).get(key)
    if not isinstance(names, list | tuple):
        raise DataError(f"{path}: expected a list of names under {key!r}, but got {type(names).__name__}")
    return tuple(map(str, names))


def _labels(path: Path, value: object) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    try:
        array = np.asarray(value) if isinstance(value, list | tuple | np.ndarray) else np.empty((0, 0))
    except ValueError:  # lists of several lengths
        array = np.empty((0, 0))
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"{path}: the labels are no list of integers")
    return array.astype(np.int64)


def notes_on_files(found: Sequence[str], expected: Sequence[str], n_images: int, n_official: int) -> tuple[str, ...]:
    """What is missing of the official files, in whole sentences; empty if nothing is."""
    if len(found) < len(expected):
        n, verb = _WORDS.get(len(expected), str(len(expected))), "was" if len(found) == 1 else "were"
        listed = ", ".join(found)
        return (f"only {listed} of the {n} training files {verb} found: {n_images:,} of {n_official:,} images",)
    if n_images != n_official:
        return (f"{', '.join(found)}: {n_images:,} images, where the official split has {n_official:,}",)
    return ()
