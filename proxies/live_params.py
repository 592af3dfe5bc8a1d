"""Parameters of the part of a network that its output depends on; ``naswot.dependence`` tells which that is."""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.dependence import dependence_of
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


@register_proxy(
    reference="this project, 2026, docs/recommended_score.md",
    needs=("scratch",),
    invariant_to=("inputs", "weights", "order"),
    own_cost="forward and backward of 3 images, shared",
)
def live_params(seen: Seen, passes: Passes) -> Tensor:
    """Number of parameters that the output depends on.

    Returns:
        () float64, a count.
    """
    return torch.tensor(dependence_of(passes).params, dtype=torch.float64)
