"""An example of a proxy, and a template: the mean absolute saliency per weight and its spread over the activations.

It means nothing; it shows the two things a proxy can do: observe the shared passes, and ask for one of their products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naswot.calls import ActivationCall
from naswot.observers import Activation, Gradient, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


def saliency(name: str, weight: nn.Parameter, gradient: Tensor) -> Tensor:
    """Sum of |w dL/dw| and number of weights, (2,); successive parameters are added up."""
    return torch.stack([(weight * gradient).abs().sum(dtype=torch.float64), torch.tensor(float(weight.numel()))])


def active(call: ActivationCall) -> Tensor:
    """Number of set bits and of all bits of one activation call, (2,)."""
    units = call.units()
    return torch.tensor([float((units > call.threshold).sum()), float(units.numel())], dtype=torch.float64)


@register_proxy(
    reference="an example; after Lee et al., SNIP, ICLR 2019, arXiv:1810.02340",
    observe={"saliency": Gradient(saliency), "active": Activation(active)},
    invariant_to=("order",),
)
def mean_weight(seen: Seen, passes: Passes, *, power: float = 1.0) -> Tensor:
    r"""Mean saliency of a weight times a power of the share of active units.

    .. math:: s = a^p \frac{1}{P} \sum_w |w \, \partial L / \partial w|

    Args:
        seen: values of the observers declared above; None where there was no event.
        passes: the passes, for products such as ``passes.outputs()`` (name them in ``needs=``).
        power: exponent p of the share of active units a.
    Returns:
        () float64 in units of the loss; undefined without activations.
    """
    if seen["active"] is None:
        return passes.undefined("the forward pass met no activation")
    total, number = seen["saliency"]
    set_bits, bits = seen["active"]
    score: Tensor = (set_bits / bits) ** power * total / number
    return score
