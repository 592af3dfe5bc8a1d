"""Architects: the gradient of the validation loss with respect to the architecture parameters.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, section 2.3. Original code:
github.com/quark0/darts, ``cnn/architect.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Bilevel:
    """What an architect works on: two losses of the same weights and alphas, and the step that the weights will take.

    Args:
        train_loss: () loss of a batch of training images at the parameters as they are, with a graph.
        valid_loss: the same of validation images.
        weights: w.
        alphas: architecture parameters.
        learning_rate: of the next step of the weights.
        momentum: of SGD.
        weight_decay: of SGD.
        buffers: momentum of each weight so far; None before its first step.
    """

    train_loss: Callable[[], Tensor]
    valid_loss: Callable[[], Tensor]
    weights: Sequence[nn.Parameter]
    alphas: Sequence[nn.Parameter]
    learning_rate: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    buffers: Sequence[Tensor | None] = ()


class Architect(ABC):
    """Works out the gradient by which the alphas are changed."""

    single_level: ClassVar[bool] = False
    """Whether alphas and weights learn together from the loss of the training images."""

    @abstractmethod
    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """Gradient of each alpha (zeros where none reaches it), and the validation loss at the weights as they are."""


@dataclass(frozen=True)
class FirstOrder(Architect):
    """The gradient at the weights as they are."""

    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """One backward pass."""
        loss = problem.valid_loss()
        return gradient(loss, problem.alphas), float(loss.detach())


@dataclass(frozen=True)
class SingleLevel(Architect):
    """No bilevel problem: alphas and weights learn from the same backward pass of the training loss."""

    single_level: ClassVar[bool] = True

    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """The gradient of the training loss, for whoever wants it alone."""
        loss = problem.train_loss()
        return gradient(loss, problem.alphas), float(loss.detach())


def gradient(loss: Tensor, of: Sequence[nn.Parameter]) -> list[Tensor]:
    """Gradient of a () loss, zeros where it does not depend on a parameter."""
    found = torch.autograd.grad(loss, list(of), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(of, found, strict=True)]
