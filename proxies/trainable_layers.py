"""Baseline: number of layers that learn.

Tybl and Neumann, Training-free Neural Architecture Search through Variance of Knowledge of Deep Network Weights
(VKDNW), CVPR 2025, call it aleph and show that it ranks NAS-Bench-201 better than most proxies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


def learns(module: nn.Module) -> bool:
    """Whether a module itself holds a trainable parameter: convolution, linear layer, affine normalisation, ..."""
    return any(p is not None and p.requires_grad for p in module._parameters.values())


@register_proxy(
    reference="Tybl and Neumann, VKDNW, CVPR 2025, arXiv:2502.04975", invariant_to=("inputs", "weights", "order")
)
def trainable_layers(seen: Seen, passes: Passes) -> Tensor:
    """Number of modules that hold trainable parameters of their own.

    Returns:
        () float64, a count.
    """
    return torch.tensor(sum(learns(module) for module in passes.model.modules()), dtype=torch.float64)
