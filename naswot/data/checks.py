"""Checks of a batch before anything is computed from it: one pass over the inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from naswot.errors import InputError, ShapeError
from naswot.types import Batch

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_batch(batch: Batch) -> Batch:
    """``batch`` itself, if a model can be scored on it.

    Raises:
        InputError: if an input holds NaN or infinite values or integer images, or if the targets are no integers.
        ShapeError: if the only input has no dimension beside the batch's.
    Example:
        >>> check_batch(Batch(torch.zeros(2, 3, 8, 8))).n
        2
    """
    if isinstance(batch.inputs, Tensor) and batch.inputs.dim() < 2:
        shape = tuple(batch.inputs.shape)
        raise ShapeError(f"expected inputs of shape (N, C, H, W) or (N, features), but got {shape}")
    for name, tensor in _named(batch):
        _check_type(name, tensor)
        _check_finite(name, tensor)
    if batch.targets is not None and batch.targets.dtype not in _INTEGERS:
        raise InputError(f"expected integer class labels (N,) as targets, but got {batch.targets.dtype}")
    return batch


def _named(batch: Batch) -> list[tuple[str, Tensor]]:
    if isinstance(batch.inputs, Mapping):
        return [(f"input {key!r}", value) for key, value in batch.inputs.items() if isinstance(value, Tensor)]
    tensors = batch.tensors()
    return [("inputs" if len(tensors) == 1 else f"input {i}", value) for i, value in enumerate(tensors)]


def _check_type(name: str, tensor: Tensor) -> None:
    is_images = tensor.dtype == torch.uint8 or (tensor.dtype in _INTEGERS and tensor.dim() == 4)
    if is_images and "mask" not in name:  # attention masks are integers of any rank
        raise InputError(
            f"expected {name} as floating-point images, but got {tensor.dtype} of shape {tuple(tensor.shape)}; convert "
            "them by images.float() / 255 and normalise"
        )


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.device.type == "meta" or not (tensor.is_floating_point() or tensor.is_complex()):
        return
    values = tensor.detach()
    # NaN and infinity survive every addition: a finite sum needs no second look, an overflowed one gets it
    if bool(torch.isfinite(values.sum())):
        return
    n_nan, n_bad = int(torch.isnan(values).sum()), int((~torch.isfinite(values)).sum())
    if n_bad:
        raise InputError(
            f"expected {name} as finite numbers, but got {n_nan:,} NaN and {n_bad - n_nan:,} infinite values among "
            f"the {values.numel():,} of shape {tuple(tensor.shape)}; clean the data first"
        )
