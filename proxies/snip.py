"""SNIP: how much the loss would feel the loss of each weight.

Papers: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019, arXiv:1810.02340;
as a proxy, without its normalisation: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021,
arXiv:2101.08134.
Original: SamsungLabs/zero-cost-nas, automl/NASLib (snip.py).
Differs from them: see proxies/_saliency.py for the weights that count; frozen ones are left out.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import PRODUCTS, total


@register_proxy(
    reference="Lee et al., SNIP, ICLR 2019, arXiv:1810.02340; as a proxy: Abdelfattah et al., arXiv:2101.08134",
    observe={"products": PRODUCTS},
    fits="models with a convolution or linear layer",
)
def snip(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of |weight times gradient of the loss|.

    .. math:: s = \sum_l \sum_{w \in W_l} | w \, \partial L / \partial w |

    The gradient in a mask of ones on the weights, as the paper has it, is w times the gradient in w, so no mask is
    needed. L is the mean cross-entropy of the batch, BatchNorm on batch statistics. Biases, normalisation layers,
    embeddings and ``in_proj_weight`` of attention do not count.

    Returns:
        () float64 in nats; 0 if every gradient vanishes; undefined if the loss depends on no such weight.
    References:
        Lee et al., ICLR 2019, arXiv:1810.02340, connection sensitivity before normalising; Abdelfattah et al., ICLR
        2021, arXiv:2101.08134.
    """
    return total({name: numbers[1] for name, numbers in seen["products"] or ()}, passes)
