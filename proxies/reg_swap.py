"""Regularised SWAP-Score: SWAP times a bell curve over the number of parameters.

Paper: Peng et al., SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS, ICLR 2024, arXiv:2403.04161.
Original: pym1024/SWAP. Its unit of parameters is the thousand, without auxiliary heads; here it is the million, all
parameters. See :mod:`proxies.swap` for what else differs.

``mu`` and ``sigma`` are free parameters: they say which size of model is wanted, so a rank correlation reached by
choosing them with accuracies in sight measures the choice. The authors take mu = sigma throughout; 25 in their search
on ImageNet (in their unit and for their small search networks). The defaults here, 1.5 and 1.5 million, are those of
their largest CIFAR-10 search as third parties' code has it; we could not check them against the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import OptionError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._patterns import UNIT_PATTERNS


@register_proxy(
    reference="Peng et al., SWAP-NAS, ICLR 2024, arXiv:2403.04161",
    observe={"patterns": UNIT_PATTERNS},
    minimum_images=2,
    fits="any model with activations; mu and sigma must suit its size",
)
def reg_swap(seen: Seen, passes: Passes, *, mu: float = 1.5, sigma: float = 1.5) -> Tensor:
    r"""SWAP times a preference for models of about ``mu`` million parameters, which the user chooses.

    .. math:: s = \mathrm{swap} \cdot \exp\left(-\frac{(\Theta - \mu)^2}{\sigma}\right)

    Args:
        seen: patterns of the units.
        passes: gives the parameters, counted once where shared.
        mu: the wanted size, in millions of parameters.
        sigma: the larger, the less the size matters; in square millions.

    Returns:
        () float64, a weighted count; undefined where the size is so far from ``mu`` that the weight underflows.
    References:
        Peng et al., ICLR 2024, Definitions 3.4 and 3.5, arXiv:2403.04161.
    """
    if not sigma > 0:
        raise OptionError(f"expected a sigma above 0, but got {sigma}")
    millions = sum(p.numel() for p in passes.model.parameters()) / 1e6
    weight = torch.tensor(-((millions - mu) ** 2) / sigma, dtype=torch.float64).exp()
    if weight == 0:
        return passes.undefined(f"{millions:.3g} million parameters are too far from mu={mu:g} for sigma={sigma:g}")
    return len(seen["patterns"]) * weight
