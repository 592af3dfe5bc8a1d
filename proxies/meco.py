"""MeCo: smallest eigenvalues of the correlations between the channels of feature maps.

Paper: Jiang et al., MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of Correlation,
NeurIPS 2023. Original: HamsterMimi/MeCo, which hooks every module, containers too, so that most maps count several
times, and takes the real parts of ``eig`` in float32.
Differs: modules without children only, and neither identities nor dropout, so each map counts once
(``containers=True`` gives the authors' reading); a map of at most as many pixels as channels has the eigenvalue 0
exactly, where theirs is rounding noise; float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import InputError
from naswot.observers import Module, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._features import PASSES_ON, observed_of_size, sized

_ROUNDING = 1e-12  # a channel that varies by less, relative to its norm, is constant


def smallest_eigenvalue(features: Tensor) -> Tensor:
    """Of the correlation matrix of the rows of (C, P) features, () float64; correlations of constant rows count 0."""
    channels, pixels = features.shape
    if pixels <= channels:
        return torch.zeros((), dtype=torch.float64, device=features.device)
    features = features.to(torch.float64)
    centred = features - features.mean(dim=1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    if not torch.isfinite(norms).all():
        return torch.tensor(math.nan, dtype=torch.float64)
    if (norms <= _ROUNDING * features.norm(dim=1, keepdim=True)).any():  # a row of zeros in a semi-definite matrix
        return torch.zeros((), dtype=torch.float64, device=features.device)
    rows = centred / norms
    eigenvalues: Tensor = torch.linalg.eigvalsh(rows @ rows.t())
    return eigenvalues[0].clamp(min=0)


def map_eigenvalue(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """(smallest eigenvalue, 1) of the feature map of the first image; (0, 0) where the output is none."""
    if not isinstance(output, Tensor) or output.dim() != 4:
        return torch.zeros(2, dtype=torch.float64)
    value = smallest_eigenvalue(output[0].flatten(1))
    return torch.stack([value.cpu(), torch.ones((), dtype=torch.float64)])


def leaf_eigenvalue(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """As :func:`map_eigenvalue`, for modules that compute something themselves."""
    if isinstance(module, PASSES_ON) or any(True for _ in module.children()):
        return torch.zeros(2, dtype=torch.float64)
    return map_eigenvalue(module, inputs, output)


@register_proxy(
    reference="Jiang et al., MeCo, NeurIPS 2023",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="convolutional networks that take images of any size",
    own_cost="a forward of one image of 64x64 pixels",
)
def meco(seen: Seen, passes: Passes, *, size: int | None = 64, containers: bool = False) -> Tensor:
    r"""Sum over layers of the smallest eigenvalue of the channels' correlations, for one random image.

    .. math:: s = \sum_l \lambda_{\min}(P(F^l)), \quad P(F)[i, j] = \mathrm{corr}(F_i, F_j)

    Args:
        seen: nothing.
        passes: gives the copy of the model and the number of channels.
        size: height and width of the image; None for those of the batch's images.
        containers: count the output of every module that gives a feature map, as the authors' code does.

    Returns:
        () float64, without unit, at least 0; undefined where features overflow.
    References:
        Jiang et al., NeurIPS 2023, Equation 2.
    """
    shape = sized(passes, "meco", size)
    observer = Module(nn.Module, map_eigenvalue if containers else leaf_eigenvalue)
    with passes.scratch() as model:
        total = observed_of_size(passes, "meco", model, torch.randn(1, *shape), {"maps": observer})["maps"]
    if total is None or total[1] == 0:
        raise InputError("meco correlates the channels of feature maps (N, C, H, W), but no module returns one")
    if not torch.isfinite(total[0]):
        return passes.undefined("the features overflow")
    value: Tensor = total[0]
    return value
