"""NEAR: effective ranks of pre-activations and activations.

Paper: Husistein, Reiher and Eckhoff, NEAR: A Training-Free Pre-Estimator of Machine Learning Model Performance,
ICLR 2025, arXiv:2408.08776. Original: ReiherGroup/NEAR (package nas-near), which looks at the outputs of all modules
that hold a weight (convolutions, norms, linear layers: the pre-activations) and of all activation modules, and averages
over repetitions, each with the weights drawn anew by ``reset_parameters``; we read 32 for the reported tables.
Differs: activations are those of every tapped call, functional ones too; where the batch has fewer rows than a layer
has channels, all there are make the matrix, while the original goes on through its data; vectors in sequences are rows,
where the original fails.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from naswot.calls import ActivationCall
from naswot.errors import OptionError
from naswot.observers import Activation, Module, Observer, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._features import effective_rank, observed

_CHANNELS_SECOND = nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase


def square_block(features: Tensor, *, channel_dim: int) -> Tensor:
    """(C, C) block of the features as (positions of all images, C), from a random column of pixels on; or all rows."""
    width = features.shape[-1] if features.dim() > 2 and channel_dim != features.dim() - 1 else 1
    rows = features.movedim(channel_dim, -1)
    if features.dim() == 4 and channel_dim == 1:
        rows = rows.transpose(1, 2)  # the original runs through the columns of an image, then through its rows
        width = features.shape[-2]
    rows = rows.reshape(-1, rows.shape[-1])
    n, channels = rows.shape
    starts = max(1, (n - channels) // width + 1)
    start = int(torch.randint(starts, ())) * width
    return rows[start : start + channels]


def output_rank(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """Effective rank of the output of a module that holds a weight, () float64; 0 of one that does not."""
    holds = isinstance(getattr(module, "weight", None), Tensor) and not isinstance(module, nn.PReLU)
    if not holds or not isinstance(output, Tensor) or output.dim() < 2 or not output.is_floating_point():
        return torch.zeros((), dtype=torch.float64)
    second = output.dim() == 4 or isinstance(module, _CHANNELS_SECOND)
    return _rank(square_block(output, channel_dim=1 if second else output.dim() - 1))


def activation_rank(call: ActivationCall) -> Tensor:
    """Effective rank of what one activation call returns, () float64."""
    values = call.activated()
    if values.dim() < 2:
        return torch.zeros((), dtype=torch.float64)
    return _rank(square_block(values, channel_dim=1 if values.dim() == 4 else values.dim() - 1))


def _rank(block: Tensor) -> Tensor:
    if not torch.isfinite(block).all():
        return torch.tensor(torch.nan, dtype=torch.float64)
    return effective_rank(block).cpu()


_RANKS: dict[str, Observer] = {"outputs": Module(nn.Module, output_rank), "activations": Activation(activation_rank)}


@register_proxy(
    reference="Husistein et al., NEAR, ICLR 2025, arXiv:2408.08776",
    needs=("scratch",),
    minimum_images=2,
    fits="any model with activations",
    own_cost="32 forwards, and singular values of all layers",
)
def near(seen: Seen, passes: Passes, *, repeats: int = 32) -> Tensor:
    r"""Sum over layers of the effective ranks of pre-activations and activations, averaged over initialisations.

    .. math:: s = \sum_l \mathrm{erank}(Z_l) + \mathrm{erank}(H_l), \quad
        \mathrm{erank}(A) = \exp\left(-\sum_i p_i \log p_i\right), \quad p_i = \sigma_i / \sum_j \sigma_j

    Args:
        seen: nothing.
        passes: gives the copy of the model and the batch.
        repeats: initialisations; the first is the model's own, the others are torch's defaults.

    Z_l and H_l are square: as many positions, next to each other in an image, as there are channels.

    Returns:
        () float64, without unit; undefined where features overflow. A layer of zeros adds 0.
    References:
        Husistein et al., ICLR 2025, Definition 3.1, arXiv:2408.08776.
    """
    if repeats < 1:
        raise OptionError(f"expected at least 1 repeat, but got {repeats}")
    batch = passes.batch.map(Tensor.detach)
    total = torch.zeros((), dtype=torch.float64)
    with passes.scratch() as model:
        for repeat in range(repeats):
            if repeat:
                _reset(model)
            values = observed(passes, model, batch, _RANKS)
            total += values["activations"] + (0 if values["outputs"] is None else values["outputs"])
    if not torch.isfinite(total):
        return passes.undefined("the features overflow")
    return total / repeats


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            with torch.no_grad():
                reset()
