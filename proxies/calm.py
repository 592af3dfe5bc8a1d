r"""CALM, the recommended score: capacity of the live network, and alignment of its codes with the labels.

How it was chosen, how far it can be trusted and where not: ``docs/recommended_score.md``. A score of this project; no
paper defines it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from naswot.dependence import dependence_of
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies.code_alignment import KERNELS, live_units_of, mean_alignment

WEIGHT = 4.0
"""What the logarithm of alignment counts; the one constant that was tuned."""


@register_proxy(
    reference="this project, docs/recommended_score.md",
    observe={"calls": KERNELS},
    needs=("scratch", "targets"),
    minimum_images=4,
    invariant_to=("order",),
    fits="any classifier with activations, on a batch with several images of a class",
    own_cost="forward and backward of 4 images",
)
def calm(seen: Seen, passes: Passes) -> Tensor:
    r"""Capacity and alignment: log of the mean live size, and four times the log of the alignment of codes with labels.

    .. math:: s = \tfrac{1}{3} (\log P + \log F + \log U) + 4 \log \bar a

    P, F and U are the parameters, multiply-accumulate operations and activation units that the output depends on (of one
    image), :math:`\bar a` is ``code_alignment``. A number for one network, to be compared among networks for the same
    images; 19 % more alignment are worth twice the size.

    Returns:
        () float64 in nats; undefined where the output depends on no activation, or the alignment is not positive.
    References:
        ``docs/recommended_score.md``.
    """
    live = dependence_of(passes)
    mean = float(mean_alignment(seen["calls"], passes))
    if math.isnan(mean):
        return torch.tensor(math.nan, dtype=torch.float64)
    sizes = (live.params, live.macs, live_units_of(seen["calls"], passes))
    if mean <= 0 or min(sizes) <= 0:
        return passes.undefined(f"expected positive terms, but alignment is {mean:.3g} and live sizes are {sizes}")
    return torch.tensor(sum(map(math.log, sizes)) / 3 + WEIGHT * math.log(mean), dtype=torch.float64)
