"""ZiCo: how large the gradient of every weight is compared with its spread over batches.

Paper: Li et al., ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients, ICLR 2023, arXiv:2301.11300.
Original code: SLDGroup/ZiCo ``ZeroShotProxy/compute_zico.py``. As there: weights of convolutions and linear layers, the
standard deviation divides by the number of batches, weights whose gradient is the same in all batches are left out, so
are layers of which nothing is left. Differences: the batches are parts of the one batch given, two halves by default
(theirs: two batches of 128, so pass 256 images for the same); the gradients are those of each batch, as in the paper,
while the released code does not clear them in between, so that its second one is the sum of both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import OptionError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._per_sample import layer_weights


@register_proxy(
    reference="Li et al., ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients, ICLR 2023, "
    "arXiv:2301.11300",
    needs=("part_gradients",),
    minimum_images=2,
    fits="models with convolutions or linear layers",
)
def zico(seen: Seen, passes: Passes, *, n_batches: int = 2) -> Tensor:
    r"""Sum over layers of the log of the summed inverse coefficients of variation of the gradients.

    .. math:: s = \sum_l \log \sum_{w \in l} \frac{\mathrm{E}_b |g_{w, b}|}{\sigma_b(g_{w, b})}

    with g the gradient of the mean loss of batch b, over the weights with a spread above zero.

    Options:
        n_batches: number of equal parts of the batch; images left over are not used.
    Returns:
        () float64 in nats; undefined when no gradient differs between the batches (all zero, say).
    Raises:
        OptionError: if ``n_batches`` is below 2, where there is no spread.
    References:
        Li et al., ICLR 2023, arXiv:2301.11300.
    """
    if n_batches < 2:
        raise OptionError(f"expected n_batches of at least 2, but got {n_batches}")
    names = layer_weights(passes.model)
    parts = passes.part_gradients(n_batches)
    terms = []
    for name in names:
        if any(name not in part for part in parts):  # the loss does not reach it
            continue
        gradients = torch.stack([part[name].detach().double() for part in parts])
        spread, size = gradients.std(dim=0, correction=0), gradients.abs().mean(dim=0)
        if not torch.isfinite(spread).all():
            return passes.undefined(f"the gradient of {name} is not finite")
        spreads = (gradients != gradients[0]).any(dim=0) & (spread > 0)
        if spreads.any():
            terms.append((size[spreads] / spread[spreads]).sum().log())
    if not terms:
        return passes.undefined("no gradient differs between the batches")
    return torch.stack(terms).sum()
