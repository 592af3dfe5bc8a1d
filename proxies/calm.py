r"""CALM, the recommended score: CApacity of the live network, and the Log Marginal likelihood of the labels.

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
from proxies._evidence import KERNELS, live_units_of, mean_evidence

WEIGHT = 16.0
"""What a nat of evidence counts beside one of size; with the noise of the process the only constant that was chosen."""


@register_proxy(
    reference="this project, 2026, docs/recommended_score.md",
    observe={"calls": KERNELS},
    needs=("scratch", "targets"),
    minimum_images=4,
    fits="any classifier with activations, on a batch with several images of a class",
    own_cost="forward and backward of 3 images, shared",
)
def calm(seen: Seen, passes: Passes) -> Tensor:
    r"""Capacity and log marginal likelihood: size of the live network, and evidence of the labels in its codes.

    .. math:: s = \tfrac{1}{2} (\log P + \log U) + 16\, e

    P and U are the parameters and the activation units (of one image) that the output depends on, e is
    ``code_evidence``. A number for one network, to be compared among networks on the same images.

    Returns:
        () float64 in nats; undefined where the output depends on no parameter, or on no activation that tells two
        images apart.
    References:
        ``docs/recommended_score.md``.
    """
    found = mean_evidence(seen["calls"], passes)
    if found.isnan():
        return found
    params, units = dependence_of(passes).params, live_units_of(seen["calls"], passes)
    if not params:
        return passes.undefined("the output depends on no parameter")
    return torch.tensor((math.log(params) + math.log(units)) / 2 + WEIGHT * float(found), dtype=torch.float64)
