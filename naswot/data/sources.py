"""A batch from whatever holds images: tensors, pairs, mappings, data sets, loaders."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from naswot.data.checks import check_batch
from naswot.data.images import ImageSet
from naswot.errors import InputError, NaswotError
from naswot.seeding import seeded, torch_generator
from naswot.types import Batch

DEFAULT_N = 128
"""Batch size of Mellor et al., for sources that do not come in batches."""


def as_batch(source: Any, n: int | None = None, *, seed: int = 0) -> Batch:
    """One checked batch from ``source``; neither it nor any global generator is changed.

    Args:
        source: a tensor or array; a pair (inputs, targets); a mapping of tensors, whose ``labels`` become the targets
            if they are one integer per image; a :class:`~naswot.types.Batch`; an :class:`~naswot.data.ImageSet`; a
            torch ``Dataset``, ``IterableDataset`` or ``DataLoader``.
        n: number of images N. From tensors the first n; from sets n distinct ones drawn with ``seed``; from loaders
            and iterable sets the first n they give. None takes tensors whole, a loader's first batch, and of sets
            128 images (all, if there are fewer).
        seed: of the draw, and of every global generator while a set or loader gives its items.
    Raises:
        InputError: if there are fewer than ``n`` images, or they are integers, NaN or infinite.
    Example:
        >>> as_batch((torch.zeros(4, 3, 8, 8), torch.arange(4)), n=2).targets
        tensor([0, 1])
    """
    if n is not None and n < 1:
        raise InputError(f"a batch needs at least one image, but n is {n}")
    if isinstance(source, ImageSet):
        batch = source.batch(min(DEFAULT_N, len(source)) if n is None else n, generator=torch_generator(seed))
    elif isinstance(source, DataLoader):
        batch = _from_loader(source, n, seed)
    elif isinstance(source, IterableDataset):
        with seeded(seed):
            batch = _collated(islice(source, n or DEFAULT_N), n)
    elif isinstance(source, Batch | Tensor | np.ndarray | Mapping | Sequence):
        batch = _first(_as_given(source), n)
    elif hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        batch = _from_dataset(source, n, seed)
    else:
        raise InputError(
            f"cannot take images from {type(source).__name__}: give a tensor, a pair (inputs, targets), a mapping of "
            "tensors, a Batch, an ImageSet, or a torch Dataset or DataLoader"
        )
    return check_batch(batch)


def _as_given(source: Any) -> Batch:
    """What a user or a loader hands over as one batch."""
    if isinstance(source, Batch):
        return source
    if isinstance(source, Tensor | np.ndarray):
        return Batch(torch.as_tensor(source))
    if isinstance(source, Mapping):
        return _from_mapping(source)
    if not isinstance(source, Sequence) or isinstance(source, str | bytes) or len(source) not in (1, 2):
        kind = f"{type(source).__name__} of {len(source)}" if isinstance(source, Sequence) else type(source).__name__
        raise InputError(
            f"expected a tensor, a pair (inputs, targets) or a mapping, but got {kind}; a model of several inputs "
            "takes naswot.types.Batch(inputs=(a, b, ...))"
        )
    inputs, targets = source[0], source[1] if len(source) == 2 else None
    batch = Batch(tuple(inputs)) if isinstance(inputs, Sequence) else _as_given(inputs)
    return batch if targets is None else dataclasses.replace(batch, targets=_targets(targets))


def _from_mapping(source: Mapping[str, Any]) -> Batch:
    inputs = dict(source)
    for key in ("labels", "label"):
        if isinstance(inputs.get(key), Tensor) and _is_labels(inputs[key]):
            return Batch(targets=inputs.pop(key).to(torch.int64), inputs=inputs)
    return Batch(inputs)


def _targets(value: Any) -> Tensor:
    value = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, Tensor) and _is_labels(value):
        return value.to(torch.int64)
    got = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    raise InputError(
        f"expected targets of shape (N,) of an integer type, but got {got}; pass the inputs alone if there are no "
        "class labels, or naswot.types.Batch(inputs=(a, b)) for a model of two inputs"
    )


def _is_labels(value: Tensor) -> bool:
    is_integer = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    return value.dim() == 1 and is_integer


def _first(batch: Batch, n: int | None) -> Batch:
    if n is None or n == batch.n:
        return batch
    if n > batch.n:
        raise InputError(f"{n} images were asked for, but the source holds only {batch.n}")
    dim, total = batch.batch_dim, batch.n

    def cut(value: Tensor) -> Tensor:
        return value.narrow(dim, 0, n) if value.dim() > dim and value.shape[dim] == total else value

    targets = None if batch.targets is None else batch.targets[:n]
    return dataclasses.replace(_unlabelled(batch).map(cut), targets=targets)


def _unlabelled(batch: Batch) -> Batch:
    return dataclasses.replace(batch, targets=None)  # while N changes, the old targets do not fit


def _from_dataset(source: Any, n: int | None, seed: int) -> Batch:
    total = len(source)
    n = min(DEFAULT_N, total) if n is None else n
    if n > total:
        raise InputError(f"{n} distinct images were asked for, but the data set holds {total:,}")
    chosen = torch.randperm(total, generator=torch_generator(seed))[:n].tolist()
    with seeded(seed):  # transforms draw from the global generators
        return _collated((source[i] for i in chosen), n)


def _collated(items: Iterable[Any], n: int | None) -> Batch:
    listed = list(items)
    if not listed or (n is not None and len(listed) < n):
        raise InputError(f"{n or 1} images were asked for, but the source gave only {len(listed)}")
    try:
        return _as_given(default_collate(listed))
    except NaswotError:
        raise
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"the items of the data set do not stack into one tensor: {error}; give it a transform that returns "
            "tensors of one size"
        ) from error


def _from_loader(loader: DataLoader[Any], n: int | None, seed: int) -> Batch:
    parts: list[Batch] = []
    with _loader_as_it_was(loader, seed):
        for given in loader:
            parts.append(_as_given(given))
            if n is None or sum(part.n for part in parts) >= n:
                break
    if not parts:
        raise InputError("the loader gave no batch")
    return _first(_joined(parts), n)


@contextmanager
def _loader_as_it_was(loader: DataLoader[Any], seed: int) -> Iterator[None]:
    """Start all generators a loader can draw from at ``seed``, and put them back on leaving."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    owners = (loader, loader.sampler, loader.batch_sampler, inner)
    found = (getattr(owner, "generator", None) for owner in owners)
    generators = {id(each): each for each in found if isinstance(each, torch.Generator)}.values()
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        with seeded(seed):
            for generator in generators:
                generator.manual_seed(seed)
            yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _joined(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    columns = zip(*(part.tensors() for part in parts), strict=True)
    joined = iter([torch.cat(column, dim=first.batch_dim) for column in columns])
    targets = [part.targets for part in parts if part.targets is not None]
    batch = _unlabelled(first).map(lambda _: next(joined))  # map visits the tensors in the order of Batch.tensors
    return dataclasses.replace(batch, targets=torch.cat(targets) if len(targets) == len(parts) else None)
