"""Image data: named sets, and batches from anything that holds images.

A data set is a function ``name(root=None, *, split, size, ...) -> ImageSet`` in a file of its own, found through the
entry-point group ``naswot.datasets``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from naswot.data.checks import check_batch
from naswot.data.images import ImageSet, noisy
from naswot.data.sources import as_batch
from naswot.errors import OptionError
from naswot.registry import Registry

__all__ = ["ImageSet", "as_batch", "check_batch", "data_sets", "get_data", "list_data", "register_data"]

Loader = TypeVar("Loader", bound=Callable[..., ImageSet])

data_sets: Registry[Callable[..., ImageSet]] = Registry("data set", "naswot.datasets", "naswot list data")


def register_data(loader: Loader) -> Loader:
    """Function decorator: make a data set findable under the name of its function."""
    data_sets.register(loader.__name__, loader)
    return loader


def get_data(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    size: int | None = None,
    noise: float = 0.0,
    **options: Any,
) -> ImageSet:
    """The data set of that name, read into memory.

    Args:
        name: one of :func:`list_data`.
        root: where its files are; None takes the environment variable ``NASWOT_DATA``.
        split: ``"train"`` or ``"test"``.
        size: height and width of the images; None gives the usual ones.
        noise: standard deviation of Gaussian noise on the normalised images, the same whenever they are read.
        options: what else the data set offers, such as ``channels`` of digits or ``limit`` of image_folder.
    Raises:
        UnknownNameError: if there is no such data set.
        OptionError: if an option is unknown or out of range.
        DataError: if files are missing or damaged.
    Example:
        >>> get_data("digits", split="test").shape
        (3, 16, 16)
    """
    loader = data_sets.get(name)
    if split not in ("train", "test"):
        raise OptionError(f"unknown split {split!r}: take 'train' or 'test'")
    if size is not None and size < 1:
        raise OptionError(f"size {size} is not possible: take at least 1")
    offered = sorted(set(inspect.signature(loader).parameters) - {"root", "split", "size"})
    unknown = [option for option in options if option not in offered]
    if unknown:
        raise OptionError(f"{name} has no option {unknown[0]!r}; it offers {', '.join(offered) or 'none'}")
    return noisy(loader(root, split=split, size=size, **options), noise)


def list_data(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the data sets; their files need not be present."""
    return data_sets.names(pattern, without=without)
