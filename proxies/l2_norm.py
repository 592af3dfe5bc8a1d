"""l2_norm: size of the weights themselves, a count of layers and channels in disguise.

Code of: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
Original: SamsungLabs/zero-cost-nas, automl/NASLib (l2_norm.py).
Differs from them: see proxies/_saliency.py for the weights that count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import ZERO_COST, counted_weights


@register_proxy(reference=ZERO_COST, invariant_to=("inputs", "order"), fits="models with a convolution or linear layer")
def l2_norm(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of the Euclidean norm of the weight.

    .. math:: s = \sum_l \| W_l \|_2

    Runs no pass. Frozen weights count; biases, normalisation layers, embeddings and ``in_proj_weight`` of attention
    do not.

    Returns:
        () float64, in units of weight; 0 only if every weight is.
    References:
        SamsungLabs/zero-cost-nas, measure "l2_norm".
    """
    weights = counted_weights(passes.model).values()
    return torch.stack([torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) for weight in weights]).sum()
