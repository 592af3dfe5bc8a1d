"""APD, a proxy written by a language model: stable ranks of normalised features times spread of the weights.

Paper: "LLM-discovered proxies", about 2025, known here from a catalogue's reading; no arXiv number and no code found.
It was selected on benchmark accuracies, so its published correlations are not those of an unseen rule.

Uncertain, and chosen here: the matrix of a BatchNorm output is one row for each image, (N, C*H*W); the norms of the
weights are those of the flattened tensor, so that ||W||_1 / ||W||_2 measures how evenly the weights are spread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import InputError
from naswot.observers import Module, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy

_BatchNorm = nn.modules.batchnorm._BatchNorm
_Convolution = nn.modules.conv._ConvNd


def stable_rank(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """Squared Frobenius norm over squared spectral norm of one output as (N, D), () float64; 0 where it is zero."""
    rows = output.reshape(output.shape[0], -1)
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    with torch.autocast(rows.device.type, enabled=False):
        gram = (rows @ rows.t() if rows.shape[0] <= rows.shape[1] else rows.t() @ rows).to(torch.float64)
    total: Tensor = gram.diagonal().sum()
    if not total.isfinite() or total == 0:  # not finite, or of rank 0
        return total
    rank: Tensor = total / torch.linalg.eigvalsh(gram)[-1]
    return rank


@register_proxy(
    reference="APD, proxy discovered by a language model, about 2025 (no arXiv number known)",
    observe={"ranks": Module(_BatchNorm, stable_rank)},
    minimum_images=2,
    fits="convolutional networks with BatchNorm",
)
def apd(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum of the stable ranks of BatchNorm outputs times sum of L1 over L2 norms of convolution weights.

    .. math:: s = \left( \sum_b \frac{\|F_b\|_F^2}{\|F_b\|_2^2} \right)
        \left( \sum_c \frac{\|W_c\|_1}{\|W_c\|_2} \right)

    Which matrix F_b is, is not certain; here (N, C*H*W), so that a stable rank is at most N. A feature map or a weight
    that is zero throughout adds 0, the rank of a zero matrix.

    Returns:
        () float64, without unit; undefined where features overflow.
    References:
        The catalogue of this project, row 33; see the module for what is uncertain.
    """
    weights = [m.weight.detach().to(torch.float64) for m in passes.model.modules() if isinstance(m, _Convolution)]
    missing = [
        name for name, there in (("convolution", weights), ("BatchNorm", seen["ranks"] is not None)) if not there
    ]
    if missing:
        raise InputError(f"apd is a product over convolutions and BatchNorm layers, but the model has no {missing[0]}")
    spreads = [w.abs().sum() / w.norm() for w in weights if w.any()]
    value = seen["ranks"] * torch.stack(spreads).sum() if spreads else 0 * seen["ranks"]
    if not torch.isfinite(value):
        return passes.undefined("the features or the weights overflow")
    result: Tensor = value
    return result
