"""grad_norm: size of the loss's gradient, layer by layer.

Paper: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
Original: SamsungLabs/zero-cost-nas, automl/NASLib (grad_norm.py).
Differs from them: see proxies/_saliency.py for the weights that count; frozen ones are left out.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Gradient, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import ZERO_COST, norm_of_gradient, total


@register_proxy(
    reference=ZERO_COST, observe={"norms": Gradient(norm_of_gradient)}, fits="models with a convolution or linear layer"
)
def grad_norm(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of the Euclidean norm of the loss's gradient in the weight.

    .. math:: s = \sum_l \| \partial L / \partial W_l \|_2

    L is the mean cross-entropy of the batch, BatchNorm on batch statistics. Biases, normalisation layers, embeddings
    and ``in_proj_weight`` of attention do not count.

    Returns:
        () float64, in nats per unit of weight; 0 if every gradient vanishes; undefined if the loss depends on no
        such weight.
    References:
        Abdelfattah et al., ICLR 2021, arXiv:2101.08134; SamsungLabs/zero-cost-nas, measure "grad_norm".
    """
    return total({name: norm for name, (norm,) in seen["norms"] or ()}, passes)
