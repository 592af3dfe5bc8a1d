r"""L-SWAG: inverse spread of the gradients of a window of layers times the number of distinct unit patterns.

Paper: Casarin et al., L-SWAG: Layer-Sample Wise Activation with Gradients information for Zero-Shot NAS on Vision
Transformers, CVPR 2025, arXiv:2505.07300. No code of the authors is public.
Built from ZiCo (Li et al., ICLR 2023, arXiv:2301.11300) and SWAP (Peng et al., ICLR 2024, arXiv:2403.04161).

Read into the paper, which does not say: layers are the weights of convolutions, linear layers and attention in the
order of registration, as in ZiCo; the variance is that over the parts of one batch, divided by their number; weights
whose gradient does not vary, and layers of nothing else, are left out, as in ZiCo; a layer of SWAP is an activation
call, bits as in NASWOT, and all of them count, within the window or not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.calls import ActivationCall
from naswot.errors import InputError, OptionError
from naswot.observers import Activation, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._copies import weight_matrices
from proxies._patterns import UnitPatterns


def distinct_patterns(call: ActivationCall) -> int:
    """Number of distinct patterns of units over the images: distinct columns of the (N, D) codes."""
    return len(UnitPatterns(call))


@register_proxy(
    reference="Casarin et al., L-SWAG, CVPR 2025, arXiv:2505.07300",
    observe={"patterns": Activation(distinct_patterns)},
    needs=("part_gradients",),
    minimum_images=4,
    fits="any model with activations",
)
def l_swag(seen: Seen, passes: Passes, *, window: tuple[float, float] = (0.0, 1.0), n_parts: int = 2) -> Tensor:
    r"""Sum of the log inverse spreads of a window of layers' gradients times the count of distinct unit patterns.

    .. math::
        s = \Bigl(\sum_{l \in W} \log \sum_w \frac{1}{\sqrt{\mathrm{Var}_p |g_{l,w}^{(p)}|}}\Bigr)
            \Bigl(\sum_l \mathrm{SWAP}_l\Bigr)

    Layer i of L, from 0, lies at depth (i + 1/2) / L.

    Options:
        window: least and greatest depth of the layers whose gradients count. The paper chooses it for every search
            space, where the spread of the gradients of 1000 random networks peaks; the default takes all.
        n_parts: parts of the batch, each with a gradient of its own; two, as ZiCo takes two batches.
    Returns:
        () float64, nats times a count; undefined when no gradient in the window varies from part to part.
    References:
        Casarin et al., CVPR 2025, arXiv:2505.07300.
    """
    low, high = window
    if not 0 <= low < high <= 1:
        raise OptionError(f"expected a window of two depths from 0 to 1, the first below the second, but got {window}")
    if n_parts < 2:
        raise OptionError(f"expected at least 2 parts, between which gradients can vary, but got {n_parts}")
    parts = passes.part_gradients(n_parts)
    layers = [name for name in weight_matrices(passes.model) if all(name in part for part in parts)]
    if not layers:
        raise InputError("the loss reaches no weight of a convolution, linear layer or attention that learns")
    within = [name for i, name in enumerate(layers) if low <= (i + 0.5) / len(layers) <= high]
    spreads = [torch.stack([part[name].to(torch.float64).abs() for part in parts]) for name in within]
    sums = torch.tensor([_inverse_spread(values) for values in spreads], dtype=torch.float64)
    if not bool((sums != 0).any()):
        return passes.undefined("no gradient in the window varies from part to part")
    trainability = sums[sums != 0].log().sum()
    return trainability * float(seen["patterns"])


def _inverse_spread(values: Tensor) -> float:
    """Sum of 1 / std over the weights of (parts, ...) gradients that vary; 0 where none does."""
    deviations = values.std(dim=0, correction=0)
    return float((1 / deviations[deviations != 0]).sum())  # NaN counts as varying and shows in the score
