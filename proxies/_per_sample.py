"""Which gradients count, and their Gram matrix; shared by GradSign, ZiCo and the tangent kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from naswot.errors import InputError


def layer_weights(model: nn.Module) -> list[str]:
    """Names of the trainable weights of convolutions and linear layers, biases and everything else left out.

    A weight that layers share comes once, under its first name.

    Raises:
        InputError: if there is none.
    """
    layers = (nn.modules.conv._ConvNd, nn.Linear)
    weights = {id(module.weight) for module in model.modules() if isinstance(module, layers)}
    names = [name for name, p in model.named_parameters() if id(p) in weights and p.requires_grad]
    if not names:
        raise InputError("the model has no convolution or linear layer with a trainable weight to take gradients of")
    return names


def gram_matrix(rows: Sequence[Tensor], *, block: int = 1 << 18) -> Tensor:
    """Inner products of N flat vectors, (N, N) float64; ``block`` entries of each are turned to float64 at a time."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for start in range(0, len(rows[0]), block):
        part = torch.stack([row[start : start + block] for row in rows]).double()
        gram += part @ part.T
    return gram
