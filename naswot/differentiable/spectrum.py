"""Curvature of the validation loss in the architecture parameters: dominant eigenvalue, Frobenius norm, full spectrum.

Papers: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656,
section 3 (dominant eigenvalue); Chen & Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based
Regularization, ICML 2020, arXiv:2002.05283 (Frobenius norm); Hutchinson, A Stochastic Estimator of the Trace of the
Influence Matrix, 1990. Original code: github.com/automl/RobustDARTS, ``src/search/analyze.py``. As there, the Hessian
is that of one validation batch, normalisation layers use the statistics of that batch, and the weight decay of the
architecture's optimizer stands on the diagonal. Differences: the batch is always the same one; a symmetric solver, so
that eigenvalues are real; drop-path and dropout are off (``mode="as_is"`` leaves them on); options that a row does not
have count no dimension; large Hessians by Lanczos, without ever being formed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.linalg import qr
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from naswot.differentiable.relaxations import Clock, Relaxation, softmax_weights
from naswot.differentiable.tasks import Pair
from naswot.errors import ConvergenceError, DivergedError, OptionError
from naswot.preserve import Mode, preserve, set_mode
from naswot.seeding import derive_seed, numpy_generator, seeded
from naswot.statistics import Floats
from naswot.supernet import MixedSupernet, Mixing

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession

EXACT_UP_TO: Final = 250
"""Largest number of parameters of which the whole Hessian is formed by default."""


class Curvature:
    """Gradient and Hessian of a loss at a point, by automatic differentiation twice.

    The graph of the gradient is kept for as long as this lives.

    Args:
        loss: () loss at the parameters as they are, with a graph.
        parameters: with respect to which; they must require a gradient.
        masks: of each parameter, bool of its shape: the entries that count; None: all.
        weight_decay: added to the diagonal, and its share to the gradient.
    Attributes:
        gradient: (n,) float64.
    Raises:
        DivergedError: if the gradient is not finite.
    """

    def __init__(
        self,
        loss: Callable[[], Tensor],
        parameters: Sequence[Tensor],
        *,
        masks: Sequence[Tensor] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters = list(parameters)
        self._masks = [torch.ones_like(p, dtype=torch.bool) for p in parameters] if masks is None else list(masks)
        self._decay = weight_decay
        found = torch.autograd.grad(loss(), self._parameters, create_graph=True, allow_unused=True)
        self._slope = self._flat(found)
        here = torch.cat([p.detach()[m] for p, m in zip(self._parameters, self._masks, strict=True)])
        self.gradient = _finite(_floats(self._slope) + weight_decay * _floats(here), "gradient")

    @property
    def n(self) -> int:
        """Number of parameters that count."""
        return len(self.gradient)

    def _flat(self, tables: Sequence[Tensor | None]) -> Tensor:
        """Entries that count, one after the other, (n,); 0 where the loss does not depend on a parameter."""
        whole = [torch.zeros_like(p) if t is None else t for p, t in zip(self._parameters, tables, strict=True)]
        return torch.cat([table[mask] for table, mask in zip(whole, self._masks, strict=True)])

    def product(self, vector: Floats) -> Floats:
        """The Hessian times a vector, (n,) float64 each.

        Raises:
            DivergedError: if it is not finite.
        """
        direction = torch.as_tensor(vector.reshape(-1).copy(), device=self._slope.device).to(self._slope.dtype)
        if not self._slope.requires_grad:  # the loss is linear in all of them
            return self._decay * vector.reshape(-1)
        found = torch.autograd.grad(
            self._slope, self._parameters, grad_outputs=direction, retain_graph=True, allow_unused=True
        )
        return _finite(_floats(self._flat(found)) + self._decay * vector.reshape(-1), "Hessian")

    def hessian(self) -> Floats:
        """(n, n) float64, symmetric: the mean of what automatic differentiation gives and its transpose."""
        rows = np.stack([self.product(row) for row in np.eye(self.n)])
        mean: Floats = (rows + rows.T) / 2
        return mean

    def dominant(
        self, k: int = 1, *, tolerance: float = 1e-4, max_iterations: int = 300, seed: int = 0
    ) -> tuple[Floats, Floats]:
        """The k algebraically largest eigenvalues and their vectors by Lanczos iteration.

        Args:
            k: less than n.
            tolerance: relative, of the eigenvalues.
            max_iterations: restarts of the iteration.
            seed: of the first vector.
        Returns:
            (k,) float64, largest first, and (n, k) float64.
        Raises:
            OptionError: if ``k`` is not between 1 and n - 1.
            ConvergenceError: if they are not that exact after all iterations.
        """
        if not 1 <= k < self.n:
            raise OptionError(f"expected k from 1 to {self.n - 1}, below the {self.n} parameters, but got {k}")
        last: deque[tuple[Floats, Floats]] = deque(maxlen=min(self.n, max(2 * k + 1, 20)))

        def remembered(vector: Floats) -> Floats:
            image = self.product(vector)
            last.append((vector.reshape(-1).copy(), image))
            return image

        operator = LinearOperator((self.n, self.n), matvec=remembered, dtype=np.float64)
        start = numpy_generator(derive_seed(seed, "lanczos")).standard_normal(self.n)
        try:
            values, vectors = eigsh(operator, k, which="LA", v0=start, tol=tolerance, maxiter=max_iterations)
        except ArpackNoConvergence as error:
            value, residual = _best_estimate([v for v, _ in last], [image for _, image in last])
            raise ConvergenceError(
                f"the dominant eigenvalue of a Hessian of {self.n} parameters did not converge: after "
                f"{max_iterations} Lanczos iterations the best estimate is {value:.6g} with a residual of "
                f"{residual:.3g}, where {tolerance:g} relative was asked for; allow more iterations (max_iterations), "
                f"a larger tolerance, or the exact Hessian (exact_up_to={self.n})"
            ) from error
        order = np.argsort(values)[::-1]
        return values[order], vectors[:, order]

    def frobenius_estimate(self, n_samples: int = 32, *, seed: int = 0) -> float:
        """Estimate of the Frobenius norm: root of the mean squared length of the Hessian's products with random signs.

        Args:
            n_samples: products; the relative error falls as one over their root.
            seed: of the signs.
        """
        rng = numpy_generator(derive_seed(seed, "signs"))
        squares = [float(np.sum(self.product(rng.choice([-1.0, 1.0], self.n)) ** 2)) for _ in range(n_samples)]
        return float(np.sqrt(np.mean(squares)))


@dataclass(frozen=True)
class Spectrum:
    """What the curvature at a point comes to.

    Args:
        eigenvalue: the algebraically largest one.
        frobenius_norm: of the Hessian; an estimate unless ``exact``.
        gradient_norm: Euclidean.
        n: number of parameters.
        exact: whether the whole Hessian was formed.
        eigenvalues: (n,) float64, ascending; None unless ``exact``.
    """

    eigenvalue: float
    frobenius_norm: float
    gradient_norm: float
    n: int
    exact: bool
    eigenvalues: Floats | None


def spectrum(
    curvature: Curvature,
    *,
    exact_up_to: int = EXACT_UP_TO,
    tolerance: float = 1e-4,
    max_iterations: int = 300,
    n_samples: int = 32,
    seed: int = 0,
) -> Spectrum:
    """Dominant eigenvalue, norms and, where the Hessian is small enough to be formed, all eigenvalues.

    Args:
        curvature: at a point.
        exact_up_to: largest number of parameters of which the Hessian is formed; Lanczos and Hutchinson above it.
        tolerance: relative, of the Lanczos iteration.
        max_iterations: restarts of it.
        n_samples: of Hutchinson's estimate of the Frobenius norm.
        seed: of both.
    Raises:
        ConvergenceError: if the Lanczos iteration does not converge.
        DivergedError: if gradient or Hessian are not finite.
    """
    length, n = float(np.linalg.norm(curvature.gradient)), curvature.n
    if n <= max(2, exact_up_to):  # Lanczos needs at least three dimensions
        hessian = curvature.hessian()
        values = np.linalg.eigvalsh(hessian).astype(np.float64, copy=False)
        return Spectrum(float(values[-1]), float(np.linalg.norm(hessian)), length, n, True, values)
    largest, _ = curvature.dominant(tolerance=tolerance, max_iterations=max_iterations, seed=seed)
    norm = curvature.frobenius_estimate(n_samples, seed=seed)
    return Spectrum(float(largest[0]), norm, length, n, False, None)


@contextmanager
def supernet_curvature(
    supernet: MixedSupernet,
    loss: Callable[[Mixing], Tensor],
    *,
    relaxation: Relaxation | None = None,
    mode: Mode = "train",
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Iterator[Curvature]:
    """Curvature in the architecture parameters of a supernet, which is left as it was.

    It is taken at the weights that the relaxation trains with where those are soft, and at the softmax of the
    parameters where a relaxation draws or cuts.

    Args:
        supernet: with the parameters at which it is taken.
        loss: () loss at a mixing.
        relaxation: of the search; None: the softmax.
        mode: of the modules; ``"train"``: batch normalisation uses the statistics of the batch, all else is in
            evaluation mode; ``"eval"``: running statistics; ``"as_is"``.
        weight_decay: on the diagonal.
        seed: of what the network draws at random.
    """
    masks = [supernet.allowed(group.name) for group in supernet.groups]
    with preserve(supernet), seeded(derive_seed(seed, "curvature")), torch.enable_grad():
        set_mode(supernet, mode)
        for parameter in supernet.weight_parameters():
            parameter.requires_grad_(False)  # spares their share of the graph
        alphas = supernet.architecture_parameters()
        for alpha in alphas:
            alpha.requires_grad_(True)

        def at_alphas() -> Tensor:
            if relaxation is not None and relaxation.soft:
                return loss(relaxation.for_architecture(supernet, Clock(0, 1)))
            return loss(Mixing(softmax_weights(supernet)))

        yield Curvature(at_alphas, alphas, masks=masks, weight_decay=weight_decay)


@contextmanager
def session_curvature(
    session: SearchSession, batch: Pair | None = None, *, mode: Mode = "train", decayed: bool = True
) -> Iterator[Curvature]:
    """Curvature of the validation loss in the architecture parameters of a search, which is left as it was.

    Args:
        session: entered.
        batch: None: the fixed one of the task.
        mode: see :func:`supernet_curvature`.
        decayed: whether the weight decay of the architecture's optimizer counts.
    """
    found = session.task.fixed_batch() if batch is None else batch
    with supernet_curvature(
        session.supernet,
        lambda mixing: session.task.loss(session.supernet, mixing, found),
        relaxation=session.relaxation,
        mode=mode,
        weight_decay=session.plan.alphas.weight_decay if decayed else 0.0,
        seed=session.seed,
    ) as curvature:
        yield curvature


def _floats(tensor: Tensor) -> Floats:
    values: Floats = tensor.detach().cpu().double().numpy()
    return values


def _finite(values: Floats, what: str) -> Floats:
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DivergedError(
            f"the {what} with respect to the architecture parameters is not finite in {bad} of {len(values)} places; "
            "the weights of the supernet may have grown too large: take a smaller learning rate"
        )
    return values


def _best_estimate(vectors: Sequence[Floats], images: Sequence[Floats]) -> tuple[float, float]:
    """Largest Ritz value of a symmetric map in the span of some vectors, and the length of its residual."""
    basis, triangle, order = qr(np.stack(vectors, axis=1), mode="economic", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    rank = int((sizes > 1e-6 * sizes[0]).sum())
    basis, triangle = basis[:, :rank], triangle[:rank, :rank]
    mapped = np.linalg.solve(triangle.T, np.stack(images, axis=1)[:, order[:rank]].T).T
    values, weights = np.linalg.eigh((basis.T @ mapped + mapped.T @ basis) / 2)
    best = weights[:, -1]
    return float(values[-1]), float(np.linalg.norm(mapped @ best - values[-1] * (basis @ best)))
