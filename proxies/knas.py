"""KNAS: mean of the Gram matrix of the images' gradients.

Paper: Xu et al., KNAS: Green Neural Architecture Search, ICML 2021, arXiv:2111.13293. Original code: Jingjing-NLP/KNAS.
This is the paper's quantity, not the released code's. That code takes 50 coordinates of each of about 11 parameter
tensors, centres the 25 values that each coordinate's gradient has in batches 1 to 25 and those in batches 26 to 50, and
adds up the products of the first with the second series. Batches come in no order, so the expectation of these
products is zero: what it returns is noise whose size grows with the gradients' variance.

Neither centring nor a removed diagonal belongs to the mean of the paper. Without them the double sum over images is a
square, and with one forward pass of the whole batch the mean gradient of the images is the gradient of the mean loss.
So no gradient of a single image is needed: the score is the squared norm of the gradient that all proxies share.

Not certain, as the paper was at hand only in part: its theory is about gradients of the network's output, and it may
sample parameters and average over layers. Here, as in the released code, it is the loss; all parameters count alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naswot.errors import InputError
from naswot.observers import Gradient, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


def squared_norm(name: str, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """Squared Euclidean norm of one parameter's gradient, () float64."""
    return gradient.double().square().sum()


@register_proxy(
    reference="Xu et al., KNAS: Green Neural Architecture Search, ICML 2021, arXiv:2111.13293",
    observe={"square": Gradient(squared_norm)},
)
def knas(seen: Seen, passes: Passes) -> Tensor:
    r"""Mean over all pairs of images of the inner product of their losses' gradients.

    .. math:: s = \frac{1}{N^2} \sum_{i, j} \nabla_w \ell_i \cdot \nabla_w \ell_j
        = \left\| \frac{1}{N} \sum_i \nabla_w \ell_i \right\|^2

    Returns:
        () float64 in nats squared per squared unit of weight; undefined when every gradient is zero.
    References:
        Xu et al., ICML 2021, arXiv:2111.13293.
    """
    square: Tensor | None = seen["square"]
    if square is None:
        raise InputError("no trainable parameter reaches the loss, so there is no gradient")
    if square == 0:
        return passes.undefined("every gradient is zero")
    if not torch.isfinite(square):
        return passes.undefined("a gradient is not finite")
    return square
