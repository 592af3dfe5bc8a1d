"""Shared by proxies that feed inputs of their own to a copy of the model and look at the features inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from naswot.errors import InputError, ModelError
from naswot.observers import Observer, Seen
from naswot.passes import Passes
from naswot.types import Batch

PASSES_ON = (nn.Identity, nn.modules.dropout._DropoutNd)
"""Modules that, outside training, hand on what they are given."""


def image_shape(passes: Passes, proxy: str) -> tuple[int, ...]:
    """Shape (C, H, W) of the images of the batch.

    Raises:
        InputError: if the model is not fed one tensor of images.
    """
    tensors = passes.batch.tensors()
    if len(tensors) == 1 and tensors[0].dim() == 4 and tensors[0].is_floating_point() and passes.batch.batch_dim == 0:
        return tuple(tensors[0].shape[1:])
    given = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors)
    raise InputError(f"{proxy} feeds random images to the model, so it needs one input (N, C, H, W); got {given}")


def sized(passes: Passes, proxy: str, size: int | None) -> tuple[int, ...]:
    """Shape (C, size, size) of images to feed; with ``size=None`` that of the batch's."""
    shape = image_shape(passes, proxy)
    return shape if size is None else (shape[0], size, size)


def observed(passes: Passes, model: nn.Module, inputs: Batch, observe: Mapping[str, Observer]) -> Seen:
    """What the observers see of one forward pass of a scratch copy, in the mode and with the taps of ``passes``."""
    with Passes(model, inputs, options=dataclasses.replace(passes.options, stop_after=None)) as own:
        own.observe(list(observe.values()))
        passes.n_forwards += own.n_forwards
        passes.n_backwards += own.n_backwards
        return own.seen(observe)


def observed_of_size(
    passes: Passes, proxy: str, model: nn.Module, images: Tensor, observe: Mapping[str, Observer]
) -> Seen:
    """As :func:`observed`, for images of a size that the model may not take.

    Raises:
        InputError: if the model takes images of the batch's size but not these.
        ModelError: if it takes neither.
    """
    try:
        return observed(passes, model, Batch(images), observe)
    except ModelError as error:
        passes.own_forward(model, passes.batch.tensors()[0].detach())
        raise InputError(
            f"{proxy} feeds images of shape {tuple(images.shape[1:])}, which the model does not take "
            f"({error.__cause__}); option size=None feeds them in the size of the batch's"
        ) from error


def effective_rank(matrix: Tensor) -> Tensor:
    r"""Exponential of the entropy of the normalised singular values, () float64; 0 for a matrix of zeros.

    .. math:: \exp\left(-\sum_i p_i \log p_i\right), \quad p_i = \sigma_i / \sum_j \sigma_j

    Example:
        >>> round(effective_rank(torch.eye(3)).item(), 12)
        3.0
    """
    values = torch.linalg.svdvals(matrix.to(torch.float64))
    total = values.sum()
    if total == 0:
        return torch.zeros((), dtype=torch.float64, device=matrix.device)
    entropy: Tensor = torch.special.entr(values / total).sum()
    return entropy.exp()
