"""What the tests of dependence share: a model of named parts, small inputs, and what is told of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from naswot.dependence import Dependence, dependence_of
from naswot.options import PassOptions
from naswot.passes import Passes
from naswot.seeding import torch_generator
from naswot.types import Batch, ModelInputs


def told(model: nn.Module, inputs: Batch | ModelInputs, *, seed: int = 0, **options: Any) -> Dependence:
    """The dependence of a model on a batch."""
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs)
    with Passes(model, batch, seed=seed, options=PassOptions(**options)) as passes:
        return dependence_of(passes)


def numbers(d: Dependence) -> tuple[float, ...]:
    """Live parameters, operations, layers, activation calls, depth, mean depth."""
    return d.params, d.macs, d.layers, len(d.calls), d.depth, round(d.mean_depth, 9)


def size(*modules: nn.Module) -> int:
    """Parameters of some modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


def images(n: int = 5, size: int = 8, channels: int = 4) -> Tensor:
    """(n, channels, size, size)."""
    return torch.randn(n, channels, size, size, generator=torch_generator(n))


def vectors(n: int = 5, width: int = 4) -> Tensor:
    """(n, width)."""
    return torch.randn(n, width, generator=torch_generator(n))


class Of(nn.Module):
    """A model of named parts and a function of them and the inputs."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self._function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        """Whatever the function gives."""
        return self._function(self, *inputs)


def conv(a: int = 4, b: int = 4, k: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps odd sizes."""
    return nn.Conv2d(a, b, k, padding=k // 2, **options)


def conv_bn() -> nn.Sequential:
    """Two convolutions with batch norms and a ReLU between them."""
    return nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(), nn.BatchNorm2d(4))
