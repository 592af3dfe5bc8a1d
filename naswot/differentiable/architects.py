"""Architects: the gradient of the validation loss with respect to the architecture parameters.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, section 2.3. Original code:
github.com/quark0/darts, ``cnn/architect.py``. Differences: the second order restores the weights from a copy instead of
adding and subtracting; all its passes see the same random numbers, so that it differentiates one function also where
paths are dropped; the product with the Hessian can also be had exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.seeding import preserve_random_state


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
        statistics: what passes change beside the parameters, such as running means.
    """

    train_loss: Callable[[], Tensor]
    valid_loss: Callable[[], Tensor]
    weights: Sequence[nn.Parameter]
    alphas: Sequence[nn.Parameter]
    learning_rate: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    buffers: Sequence[Tensor | None] = ()
    statistics: Sequence[Tensor] = ()


class Architect(ABC):
    """Works out the gradient by which the alphas are changed."""

    single_level: ClassVar[bool] = False
    """Whether alphas and weights learn together from the loss of the training images."""

    @abstractmethod
    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """Gradient of each alpha (zeros where none reaches it), and the loss that was looked at."""


@dataclass(frozen=True)
class FirstOrder(Architect):
    """The gradient at the weights as they are."""

    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """One backward pass."""
        loss = problem.valid_loss()
        return gradient(loss, problem.alphas), float(loss.detach())


@dataclass(frozen=True)
class SecondOrder(Architect):
    r"""The gradient at the weights after their next step, which depend on the alphas too.

    .. math:: \nabla_\alpha L_{val}(w', \alpha) - \eta \nabla^2_{\alpha, w} L_{train}(w, \alpha) \, v, \quad
        w' = w - \eta (\mu b + \nabla_w L_{train} + \lambda w), \quad v = \nabla_{w'} L_{val}(w', \alpha)

    with momentum :math:`\mu b` and weight decay :math:`\lambda`. Running statistics see the training batch in three
    passes (in two if exact) and the validation batch, which goes through the unrolled weights, not at all, as in the
    original. Nesterov's form of the step is left out, and clipping where none is asked for.

    Args:
        radius: length of the step to either side by which the product with the Hessian is taken as a difference.
        exact: take it by a second derivative instead, which needs more memory.
        clip_norm: largest norm of the gradient of the step and of v, as for recurrent cells in the original; None: any.
    Raises:
        OptionError: if the radius or the norm is not positive.
    """

    radius: float = 0.01
    exact: bool = False
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if not self.radius > 0.0:
            raise OptionError(f"expected a positive radius of the finite difference, but got {self.radius}")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise OptionError(f"expected a positive clip_norm, or None, but got {self.clip_norm}")

    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """Four passes forward and backward."""
        n = len(problem.alphas)
        with preserve_random_state():
            step = _next_step(problem, self.clip_norm)
        with _kept(problem.weights), _kept(problem.statistics), preserve_random_state():
            _move(problem.weights, step, -problem.learning_rate)
            loss = problem.valid_loss()
            found = gradient(loss, [*problem.alphas, *problem.weights])
        direct, v = found[:n], _clipped(found[n:], self.clip_norm)
        product = exact_product(problem, v) if self.exact else difference_product(problem, v, self.radius)
        slopes = [d - problem.learning_rate * p for d, p in zip(direct, product, strict=True)]
        return slopes, float(loss.detach())


def _next_step(problem: Bilevel, clip_norm: float | None = None) -> list[Tensor]:
    """Direction in which SGD goes next, against the sign of the weights."""
    slopes = _clipped(gradient(problem.train_loss(), problem.weights), clip_norm)
    buffers = problem.buffers or [None] * len(slopes)
    step = []
    for w, slope, buffer in zip(problem.weights, slopes, buffers, strict=True):
        direction = slope + problem.weight_decay * w.detach()
        step.append(direction if buffer is None else direction + problem.momentum * buffer)
    return step


def _clipped(slopes: list[Tensor], norm: float | None) -> list[Tensor]:
    """The same direction, no longer than a norm; None: as long as it is."""
    if norm is None:
        return slopes
    scale = (norm / (_length(slopes) + 1e-6)).clamp(max=1.0)
    return [slope * scale for slope in slopes]


def _length(parts: Sequence[Tensor]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in parts]))
    return length


def difference_product(problem: Bilevel, v: Sequence[Tensor], radius: float = 0.01) -> list[Tensor]:
    """Mixed second derivative of the training loss times a vector, by a central difference of two gradients.

    Args:
        problem: its weights come back bit for bit.
        v: of the shapes of the weights.
        radius: length of the step to either side.
    Returns:
        One tensor for each alpha; zeros if ``v`` is zero.
    """
    length = _length(v)
    if not length:
        return [torch.zeros_like(alpha) for alpha in problem.alphas]
    scale = float(radius / length)
    with _kept(problem.weights), preserve_random_state():
        _move(problem.weights, v, scale)
        above = gradient(problem.train_loss(), problem.alphas)
    with _kept(problem.weights):
        _move(problem.weights, v, -scale)
        below = gradient(problem.train_loss(), problem.alphas)
    return [(a - b) / (2.0 * scale) for a, b in zip(above, below, strict=True)]


def exact_product(problem: Bilevel, v: Sequence[Tensor]) -> list[Tensor]:
    """The same by differentiating twice.

    Args:
        problem: unchanged.
        v: of the shapes of the weights.
    """
    weights = list(problem.weights)
    slopes = torch.autograd.grad(problem.train_loss(), weights, create_graph=True, allow_unused=True)
    along = [(slope * part).sum() for slope, part in zip(slopes, v, strict=True) if slope is not None]
    total = torch.stack(along).sum()
    if not total.requires_grad:
        return [torch.zeros_like(alpha) for alpha in problem.alphas]
    return gradient(total, problem.alphas)


@contextmanager
def _kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put them back bit for bit."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


@torch.no_grad()
def _move(weights: Sequence[Tensor], by: Sequence[Tensor], scale: float) -> None:
    for w, direction in zip(weights, by, strict=True):
        w.add_(direction, alpha=scale)


@dataclass(frozen=True)
class SingleLevel(Architect):
    """No bilevel problem: alphas and weights learn from the same backward pass of the training loss."""

    single_level: ClassVar[bool] = True

    def gradients(self, problem: Bilevel) -> tuple[list[Tensor], float]:
        """The gradient of the training loss, for whoever wants it alone."""
        loss = problem.train_loss()
        return gradient(loss, problem.alphas), float(loss.detach())


def gradient(loss: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """Gradient of a () loss, zeros where it does not depend on a tensor."""
    found = torch.autograd.grad(loss, list(of), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(of, found, strict=True)]
