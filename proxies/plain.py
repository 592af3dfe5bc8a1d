"""plain: weight times gradient, with its sign.

Code of: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134 (the paper itself does
not discuss it; it is skeletonisation, Mozer and Smolensky 1989, summed up).
Original: SamsungLabs/zero-cost-nas, automl/NASLib (plain.py).
Differs from them: see proxies/_saliency.py for the weights that count; frozen ones are left out.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import PRODUCTS, ZERO_COST, total


@register_proxy(
    reference=ZERO_COST,
    observe={"products": PRODUCTS},
    fits="models with a convolution or linear layer",
)
def plain(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of weight times gradient of the loss, signs kept.

    .. math:: s = \sum_l \sum_{w \in W_l} w \, \partial L / \partial w

    L is the mean cross-entropy of the batch, BatchNorm on batch statistics. Biases, normalisation layers, embeddings
    and ``in_proj_weight`` of attention do not count. A layer right before such a BatchNorm contributes nothing but
    rounding and the norm's epsilon, because the loss does not feel its scale; what is left is the other layers.

    Returns:
        () float64 in nats, of either sign; 0 if every gradient vanishes; undefined if the loss depends on no such
        weight.
    References:
        SamsungLabs/zero-cost-nas, measure "plain".
    """
    return total({name: numbers[0] for name, numbers in seen["products"] or ()}, passes)
