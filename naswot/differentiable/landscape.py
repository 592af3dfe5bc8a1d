"""Loss and accuracy around an architecture: how sharp the minimum is that a search has found.

Paper: Chen & Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020,
arXiv:2002.05283, figure 1; Zela et al., ICLR 2020, arXiv:1909.09656, section 3. Differences: directions are orthonormal
in the space of the alphas, so that distances are those of the quadratic model, half the eigenvalue times their square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from naswot.differentiable.relaxations import Relaxation, Softmax
from naswot.differentiable.spectrum import supernet_curvature
from naswot.differentiable.tasks import Pair
from naswot.errors import OptionError
from naswot.logits import logits_of
from naswot.preserve import preserve, set_mode
from naswot.seeding import derive_seed, numpy_generator, seeded
from naswot.statistics import Floats
from naswot.supernet import MixedSupernet, Mixing

Directions = Literal["random", "eigenvectors"]


@dataclass(frozen=True)
class Landscape:
    """Values on a square grid around the alphas of a search.

    Args:
        offsets: (n,) distances from the alphas along each direction; the middle one is 0.
        loss: (n, n) nats; rows along the first direction, columns along the second.
        accuracy: (n, n) percent; None where the task has no classes.
        directions: what they are.
    """

    offsets: Floats
    loss: Floats
    accuracy: Floats | None
    directions: Directions


def landscape(
    supernet: MixedSupernet,
    batch: Pair,
    *,
    relaxation: Relaxation | None = None,
    loss: Callable[[Mixing], Tensor] | None = None,
    n: int = 21,
    span: float = 4.0,
    directions: Directions = "random",
    seed: int = 0,
) -> Landscape:
    """Loss and accuracy of a batch around the alphas of a supernet, which come back bit for bit.

    In evaluation mode, at the weights that the relaxation tells.

    Args:
        supernet: of a search, such as ``session.supernet`` or ``result.supernet``.
        batch: images (N, C, H, W) and labels (N,), such as ``session.task.fixed_batch()``.
        relaxation: of the search; None: the softmax.
        loss: of the batch at a mixing; None: cross-entropy, with the accuracy beside it.
        n: points along each direction, odd.
        span: largest distance from the alphas along each direction (Euclidean, over all of them).
        directions: two at random, or the eigenvectors of the two largest eigenvalues of the Hessian.
        seed: of the random directions.
    Raises:
        OptionError: for no such grid or directions, or if single paths are trained, so that there is nothing to see.
    """
    kind = Softmax() if relaxation is None else relaxation
    if n < 1 or n % 2 == 0 or span <= 0:
        raise OptionError(f"expected an odd n of at least 1 and a span above 0, but got n={n} and span={span}")
    if not kind.mixed:
        raise OptionError(
            f"{type(kind).__name__} trains single paths, so there is no loss around its alphas; search with a "
            "relaxation that mixes, such as Softmax"
        )

    def measure(mixing: Mixing) -> tuple[float, float]:
        if loss is not None:
            return float(loss(mixing)), np.nan
        logits = logits_of(supernet(batch[0], mixing))
        hits = (logits.argmax(dim=1) == batch[1]).double().mean()
        return float(F.cross_entropy(logits, batch[1])), 100.0 * float(hits)

    axes = _directions(supernet, directions, kind, loss or classification_loss(supernet, batch), seed).T
    offsets: Floats = np.linspace(-span, span, n)
    offsets[n // 2] = 0.0
    values = np.empty((n, n, 2))
    with _movable(supernet, seed) as move:
        for i, j in np.ndindex(n, n):
            move(np.array([offsets[i], offsets[j]]) @ axes)
            values[i, j] = measure(Mixing(kind.expected(supernet)))
    return Landscape(offsets, values[..., 0], values[..., 1] if loss is None else None, directions)


def classification_loss(supernet: MixedSupernet, batch: Pair) -> Callable[[Mixing], Tensor]:
    """Cross-entropy of a batch as a function of the mixing.

    Args:
        supernet: gives logits (N, K).
        batch: images (N, C, H, W) and labels (N,).
    """
    return lambda mixing: F.cross_entropy(logits_of(supernet(batch[0], mixing)), batch[1])


def _directions(
    supernet: MixedSupernet, kind: Directions, relaxation: Relaxation, loss: Callable[[Mixing], Tensor], seed: int
) -> Floats:
    """(parameters, 2), orthonormal."""
    if kind not in ("random", "eigenvectors"):
        raise OptionError(f"expected directions 'random' or 'eigenvectors', but got {kind!r}")
    if kind == "eigenvectors":
        with supernet_curvature(supernet, loss, relaxation=relaxation, mode="eval", seed=seed) as curvature:
            return curvature.dominant(2, seed=seed)[1]
    parameters = sum(int(supernet.allowed(group.name).sum()) for group in supernet.groups)
    drawn = numpy_generator(derive_seed(seed, "landscape")).standard_normal((parameters, 2))
    orthonormal: Floats = np.linalg.qr(drawn)[0]
    return orthonormal


@contextmanager
def _movable(supernet: MixedSupernet, seed: int) -> Iterator[Callable[[Floats], None]]:
    """A function that moves the alphas away from where they are, in evaluation mode; then everything is as before."""
    alphas = supernet.architecture_parameters()
    masks = [supernet.allowed(group.name) for group in supernet.groups]
    here = [alpha.detach().clone() for alpha in alphas]

    def move(by: Floats) -> None:
        rest = torch.as_tensor(by)
        for alpha, mask, start in zip(alphas, masks, here, strict=True):
            part, rest = rest[: int(mask.sum())], rest[int(mask.sum()) :]
            alpha.copy_(start)
            alpha[mask] += part.to(alpha)

    with preserve(supernet), torch.no_grad(), seeded(derive_seed(seed, "landscape")):
        set_mode(supernet, "eval")
        try:
            yield move
        finally:
            for alpha, start in zip(alphas, here, strict=True):
                alpha.copy_(start)
