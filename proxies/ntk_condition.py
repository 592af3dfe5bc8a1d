"""Condition number of the neural tangent kernel, the trainability half of TE-NAS.

Paper: Chen, Gong and Wang, Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021,
arXiv:2102.11535. Original code: VITA-Group/TENAS ``lib/procedures/ntk.py``. As there: one batch in training mode, so
that BatchNorm ties the images together; the gradient of the sum of an image's logits; only parameters whose name holds
"weight" (of convolutions, linear layers, norms, embeddings), no biases. Differences: the kernel in float64; weights are
the model's own (theirs: redrawn, Kaiming normal, three times, and averaged); a singular kernel gives infinity with
its reason instead of a quotient of rounding errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from naswot.errors import InputError
from naswot.observers import SampleGradient, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._per_sample import gram_matrix


def flat_weight_gradient(gradients: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """One image's gradient of the parameters called weight, as one vector of at least 32 bits; () if there is none."""
    flat = [g.detach().reshape(-1) for name, g in gradients.items() if "weight" in name]
    if not flat:
        return ()
    row = torch.cat(flat)
    return (row.to(torch.promote_types(row.dtype, torch.float32)),)


@register_proxy(
    reference="Chen et al., Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021, "
    "arXiv:2102.11535",
    observe={"rows": SampleGradient(flat_weight_gradient, reading="coupled", of="logits")},
    higher_is_better=False,
    minimum_images=2,
    fits="any model with a trainable weight; keeps N gradients in memory",
)
def ntk_condition(seen: Seen, passes: Passes) -> Tensor:
    r"""Condition number of the empirical neural tangent kernel of the batch.

    .. math:: \kappa = \frac{\lambda_{\max}(\Theta)}{\lambda_{\min}(\Theta)}, \quad
        \Theta_{ij} = \nabla_w \textstyle\sum_c f_c(x_i) \cdot \nabla_w \sum_c f_c(x_j)

    Over all N images of the batch: it grows with N, so only scores at the same N compare (the authors: 72 for
    NAS-Bench-201, 14 and 24 for DARTS).

    Returns:
        () float64, without unit, at least 1; infinity when the kernel is singular to float64's precision; undefined
        when every gradient is zero.
    References:
        Chen et al., ICLR 2021, arXiv:2102.11535.
    """
    rows = seen["rows"]
    if not rows:
        raise InputError("the model has no parameter called weight that reaches the logits, so no tangent kernel")
    kernel = gram_matrix(rows)
    if not torch.isfinite(kernel).all():
        return passes.undefined("a gradient is not finite")
    values: Tensor = torch.linalg.eigvalsh(kernel)
    smallest, largest = values[0], values[-1]
    if largest <= 0:
        return passes.undefined("the gradient of every image is zero")
    if smallest <= len(rows) * torch.finfo(torch.float64).eps * largest:
        passes.remark("the tangent kernel is singular: some image's gradient is a combination of the others'")
        return torch.tensor(math.inf, dtype=torch.float64)
    return largest / smallest
