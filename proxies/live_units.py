"""Activation units of the part of a network that its output depends on; ``naswot.dependence`` tells which that is."""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._evidence import KERNELS, live_units_of


@register_proxy(
    reference="this project, 2026, docs/recommended_score.md",
    observe={"calls": KERNELS},
    needs=("scratch",),
    invariant_to=("inputs", "weights", "order"),
    fits="any model with activations",
    own_cost="forward and backward of 3 images, shared",
)
def live_units(seen: Seen, passes: Passes) -> Tensor:
    """Signs, for one image, that the activation calls read which the output depends on.

    Returns:
        () float64, a count.
    """
    return torch.tensor(live_units_of(seen["calls"], passes), dtype=torch.float64)
