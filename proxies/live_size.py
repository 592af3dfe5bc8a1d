"""Sizes of the part of a network that its output depends on; ``naswot.dependence`` tells which part that is."""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.dependence import dependence_of
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._evidence import KERNELS, live_units_of

_REFERENCE = "this project, 2026, docs/recommended_score.md"
_COST = "forward and backward of 3 images, shared"


@register_proxy(reference=_REFERENCE, needs=("scratch",), invariant_to=("inputs", "weights", "order"), own_cost=_COST)
def live_params(seen: Seen, passes: Passes) -> Tensor:
    """Number of parameters that the output depends on.

    Returns:
        () float64, a count.
    """
    return torch.tensor(dependence_of(passes).params, dtype=torch.float64)


@register_proxy(reference=_REFERENCE, needs=("scratch",), invariant_to=("inputs", "weights", "order"), own_cost=_COST)
def live_flops(seen: Seen, passes: Passes) -> Tensor:
    """Multiply-accumulate operations, for one image, of the layers that the output depends on; see ``flops``.

    Returns:
        () float64, a count.
    """
    return torch.tensor(dependence_of(passes).macs, dtype=torch.float64)


@register_proxy(reference=_REFERENCE, needs=("scratch",), invariant_to=("inputs", "weights", "order"), own_cost=_COST)
def live_depth(seen: Seen, passes: Passes) -> Tensor:
    """Layers (convolutions, linear layers, matrix products) on the longest chain from the input to the output.

    Returns:
        () float64, a count.
    """
    return torch.tensor(dependence_of(passes).depth, dtype=torch.float64)


@register_proxy(
    reference=_REFERENCE,
    observe={"calls": KERNELS},
    needs=("scratch",),
    invariant_to=("inputs", "weights", "order"),
    fits="any model with activations",
    own_cost=_COST,
)
def live_units(seen: Seen, passes: Passes) -> Tensor:
    """Signs, for one image, that the activation calls read which the output depends on.

    Returns:
        () float64, a count.
    """
    return torch.tensor(live_units_of(seen["calls"], passes), dtype=torch.float64)
