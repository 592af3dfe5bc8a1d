"""Baseline: number of parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


@register_proxy(
    reference="baseline; see Ning et al., NeurIPS 2021, arXiv:2008.03064", invariant_to=("inputs", "weights", "order")
)
def params(seen: Seen, passes: Passes) -> Tensor:
    """Number of parameters, shared ones counted once, frozen ones included.

    Returns:
        () float64, a count.
    """
    return torch.tensor(sum(p.numel() for p in passes.model.parameters()), dtype=torch.float64)
