"""SWAP-Score: the number of distinct patterns that units form over the images of the batch.

Paper: Peng et al., SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS, ICLR 2024, arXiv:2403.04161.
Original: pym1024/SWAP, which concatenates the outputs of all ``nn.ReLU`` modules fed with feature maps, takes their
signs, and counts the distinct columns over all layers together; it averages 32 draws of N(0, 1) weights at 16 images.
Differs from it: every tapped activation call counts, functional ones and those on vectors too; the weights are those
of the model, once; a bit is "above the lowest kink", which for a ReLU is the sign of its output. The set is kept
while the pass runs, instead of the whole matrix of signs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._patterns import UNIT_PATTERNS


@register_proxy(
    reference="Peng et al., SWAP-NAS, ICLR 2024, arXiv:2403.04161",
    observe={"patterns": UNIT_PATTERNS},
    minimum_images=2,
    fits="any model with activations",
)
def swap(seen: Seen, passes: Passes) -> Tensor:
    r"""Number of distinct sign patterns of units over the batch, all activation calls together.

    .. math:: s = \left| \{ (c_1^v, \dots, c_N^v) : v \text{ a unit} \} \right|

    Returns:
        () float64, a count, at least 1 and at most min(N_A, 2^N): small batches saturate it.
    References:
        Peng et al., ICLR 2024, Definitions 3.2 and 3.3, arXiv:2403.04161.
    """
    return torch.tensor(len(seen["patterns"]), dtype=torch.float64)
