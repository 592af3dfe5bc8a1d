"""From a model and a batch to its result, its logits and their loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naswot.errors import InputError, ModelError, NaswotError, OutputError
from naswot.types import Batch

OutputRule = Callable[[Any], Tensor]
"""Picks the logits out of a model's result."""


def logits_of(result: Any, rule: OutputRule | None = None) -> Tensor:
    """Logits (N, K) of a model's result: a tensor; its ``.logits``; the last 2-D tensor of a tuple; or by ``rule``.

    Raises:
        OutputError: naming what came instead.
    """
    if rule is not None:
        result = rule(result)
    if isinstance(result, Tensor):
        return result
    logits = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(result, tuple | list):
        matrices = [value for value in result if isinstance(value, Tensor) and value.dim() == 2]
        if matrices:
            return matrices[-1]
    raise OutputError(
        f"cannot find logits in the model's result of type {type(result).__name__}: expected a tensor, an object with "
        f"`.logits`, or a tuple that holds a 2-D tensor; pass output= to pick them, such as output=lambda r: r['out']"
    )


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors that lie openly in a model's result: itself, its logits, or the values of a tuple or mapping."""
    values = result.values() if isinstance(result, Mapping) else result
    if not isinstance(result, Mapping | tuple | list):
        values = [getattr(result, "logits", result)]
    return [value for value in values if isinstance(value, Tensor)]


def is_nan(tensor: Tensor) -> bool:
    """Whether a tensor holds a NaN."""
    return tensor.is_floating_point() and not tensor.is_meta and bool(tensor.isnan().any())


def result_of(model: nn.Module, batch: Batch) -> Any:
    """What a model makes of a batch; it is given copies, as it may begin in place.

    Raises:
        ModelError: if the model raises; the original error is the cause.
        InputError: if it makes NaN of finite inputs.
    """
    try:
        # its first module may write in place: to a copy, not to the caller's images or a leaf
        result = batch.map(torch.clone).call(model)
    except NaswotError:
        raise
    except Exception as error:
        given = ", ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in batch.tensors())
        raise ModelError(
            f"the model {type(model).__name__} raised {type(error).__name__}: {error} (inputs {given})"
        ) from error
    if any(is_nan(value) for value in tensors_of(result)):
        raise InputError(
            f"the model {type(model).__name__} turned finite inputs into NaN outputs; "
            f"its weights may hold NaN or be too large"
        )
    return result


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross-entropy of (N, K) logits; () or, with ``reduction="none"``, (N,).

    Raises:
        OutputError: if the logits are no matrix.
    """
    if logits.dim() != 2:
        raise OutputError(f"expected logits of shape (N, K), but got {tuple(logits.shape)}; pass output= to pick them")
    if not targets.is_meta:
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= logits.shape[1]:
            raise InputError(
                f"the labels go from {low} to {high}, but the model has {logits.shape[1]} logits, "
                f"for labels from 0 to {logits.shape[1] - 1}"
            )
    return F.cross_entropy(logits, targets, reduction=reduction)
