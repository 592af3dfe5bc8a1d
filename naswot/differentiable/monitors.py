"""Monitors of a search by a supernet: curvature, accuracy, discretisation gap, and what shape the architecture takes.

Papers: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656
(eigenvalue, accuracy after discretisation, number of skip connections); Chen & Hsieh, Stabilizing Differentiable
Architecture Search via Perturbation-based Regularization, ICML 2020, arXiv:2002.05283 (Frobenius norm); Dong & Yang,
NAS-Bench-201, ICLR 2020, arXiv:2001.00326 (the cell of skip connections that searches collapse to). Differences from
their codes: a monitor leaves no trace, so that a search with monitors ends where it does without them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from naswot.differentiable.relaxations import Relaxation
from naswot.differentiable.spectrum import EXACT_UP_TO, session_curvature, spectrum
from naswot.errors import ConvergenceError, DivergedError
from naswot.preserve import Mode, preserve
from naswot.seeding import derive_seed, seeded
from naswot.supernet import Group, MixedSupernet, Mixing, Weights
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession

Measures = dict[str, Any]
"""Numbers by name; what a reader has to be told is a text under a name that ends in ``warning``."""

SKIPS: Final = ("skip_connect", "identity", "skip", "id")
"""Names of options that hand their input on."""

_FREE: Final = (*SKIPS, "none", "zero", "noise")


@dataclass(frozen=True, kw_only=True)
class HessianMonitor:
    """``eigenvalue`` (largest), ``frobenius_norm`` and ``gradient_norm`` of the validation loss in the alphas.

    Always on the same batch. An eigenvalue that does not converge is told as ``hessian_warning`` instead; the search
    goes on.

    Args:
        every: epochs between two measurements.
        mode: of the modules; see :func:`~naswot.differentiable.spectrum.supernet_curvature`.
        decayed: whether the weight decay of the alphas stands on the diagonal, as published.
        exact_up_to: largest number of parameters of which the whole Hessian is formed; above it the eigenvalue comes
            by Lanczos iteration and the Frobenius norm is an estimate.
        tolerance: of the Lanczos iteration, relative.
        max_iterations: of the Lanczos iteration.
        single_paths: measure at the softmax of the alphas also where single paths are trained, so that the mixture is
            no network that the search knows; otherwise nothing is measured there.
    """

    every: int = 1
    mode: Mode = "train"
    decayed: bool = True
    exact_up_to: int = EXACT_UP_TO
    tolerance: float = 1e-4
    max_iterations: int = 300
    single_paths: bool = False

    def measure(self, session: SearchSession) -> Measures:
        """Three numbers."""
        if not self.applies_to(session.relaxation):
            return {}
        try:
            with session_curvature(session, mode=self.mode, decayed=self.decayed) as curvature:
                found = spectrum(
                    curvature,
                    exact_up_to=self.exact_up_to,
                    tolerance=self.tolerance,
                    max_iterations=self.max_iterations,
                    seed=session.seed,
                )
        except (ConvergenceError, DivergedError) as error:
            return {"hessian_warning": str(error)}
        return {
            "eigenvalue": found.eigenvalue,
            "frobenius_norm": found.frobenius_norm,
            "gradient_norm": found.gradient_norm,
        }

    def applies_to(self, relaxation: Relaxation) -> bool:
        """Whether it measures anything in a search by this relaxation."""
        return relaxation.mixed or self.single_paths


@dataclass(frozen=True, kw_only=True)
class AccuracyMonitor:
    """``valid_accuracy`` (percent) and ``valid_loss`` (nats) of the supernet at the weights that the alphas tell.

    In evaluation mode. Where single paths are trained, the mean over a few that the relaxation draws.

    Args:
        every: epochs between two measurements.
        n_paths: paths that are drawn.
    """

    every: int = 1
    n_paths: int = 5

    def measure(self, session: SearchSession) -> Measures:
        """Two numbers."""
        found = [_evaluated(session, mixing) for mixing in self._mixings(session)]
        names = {"accuracy": "valid_accuracy", "loss": "valid_loss"}
        return {long: float(np.mean([values[short] for values in found])) for short, long in names.items()}

    def _mixings(self, session: SearchSession) -> list[Mixing]:
        supernet = session.supernet
        if session.relaxation.mixed:
            return [Mixing(session.relaxation.expected(supernet))]
        relaxation = copy.deepcopy(session.relaxation)  # drawing may change what it remembers
        with preserve(supernet), torch.no_grad(), seeded(derive_seed(session.seed, "monitored paths", session.epoch)):
            return [relaxation.for_weights(supernet, session.clock) for _ in range(self.n_paths)]


@dataclass(frozen=True, kw_only=True)
class ProjectionMonitor:
    """What the step from the mixture to one architecture costs, with the shared weights and without retraining.

    ``projected_accuracy`` (percent) is that of the sub-network of the architecture that the alphas tell, whose options
    weigh 1 each, and ``discretisation_gap`` (percentage points) what the supernet has above it; ``valid_accuracy`` and
    ``valid_loss`` are given too, being needed for it. There is no gap where single paths are trained, and nothing where
    the alphas tell no architecture.

    Args:
        every: epochs between two measurements.
    """

    every: int = 1

    def measure(self, session: SearchSession) -> Measures:
        """Up to four numbers."""
        found = AccuracyMonitor().measure(session)
        genotype = session.relaxation.genotype(session.supernet)
        if genotype is None:
            return found
        projected = _evaluated(session, session.supernet.mixing_of(genotype))["accuracy"]
        gap = {"discretisation_gap": found["valid_accuracy"] - projected} if session.relaxation.mixed else {}
        return {**found, "projected_accuracy": projected, **gap}


@dataclass(frozen=True, kw_only=True)
class ShapeMonitor:
    """What the alphas tell: skip connections of each kind of cell, and how sure the weights are.

    ``n_skips_<group>`` counts the skip connections of the architecture, as published counts do (those of the normal
    cell of DARTS are 8 at most); ``entropy`` (nats) and ``largest_weight`` are means over all rows that choose an
    operation. The first architecture that has collapsed is told as ``warning``: all operations of its first group are
    free of parameters.

    Args:
        every: epochs between two measurements.
    """

    every: int = 1

    def measure(self, session: SearchSession) -> Measures:
        """Some numbers, and a text once in a search."""
        supernet, relaxation = session.supernet, session.relaxation
        found: Measures = dict(_sureness(relaxation.expected(supernet), supernet.operation_groups))
        genotype = relaxation.genotype(supernet)
        if genotype is None:
            return found
        taken = operations_of(supernet, genotype)
        found |= {f"n_skips_{name}": sum(option in SKIPS for option in options) for name, options in taken.items()}
        if has_collapsed(supernet, genotype) and not any("warning" in row for row in session.history):
            name, options = next(iter(taken.items()))
            found["warning"] = (
                f"the search has collapsed in epoch {session.epoch}: the {name} operations of its architecture are "
                f"{', '.join(sorted(set(options)))} only, which learn nothing; an earlier epoch, darts_es, a larger "
                "weight decay of the weights or a perturbed search (sdarts_rs) may give a better one"
            )
        return found


def default_monitors() -> tuple[ProjectionMonitor, ShapeMonitor, HessianMonitor]:
    """Accuracy with its projection, shape and curvature, all of them after every epoch."""
    return ProjectionMonitor(), ShapeMonitor(), HessianMonitor()


def operations_of(supernet: MixedSupernet, genotype: Genotype) -> dict[str, list[str]]:
    """Names of the operations that an architecture takes, by group."""
    tables = supernet.chosen(genotype)
    return {
        group.name: [group.options[row][option] for row, option in tables[group.name].nonzero().tolist()]
        for group in supernet.operation_groups
    }


def has_collapsed(supernet: MixedSupernet, genotype: Genotype) -> bool:
    """Whether all operations of the first group (the normal cell, the only cell) are free of parameters.

    Later groups do not count: reduction cells of nothing but pooling are common in good architectures.
    """
    first = next(iter(operations_of(supernet, genotype).values()))
    return all(name in _FREE or "pool" in name for name in first)


def _sureness(weights: Weights, groups: tuple[Group, ...]) -> Iterator[tuple[str, float]]:
    """Mean entropy and mean largest weight of the rows of some groups, each row taken to sum to 1."""
    rows = [row.double().clamp(min=0.0) for group in groups for row in weights[group.name]]
    shares = [row / row.sum() for row in rows if float(row.sum()) > 0.0]
    if shares:
        yield "entropy", float(np.mean([float(torch.special.entr(share).sum()) for share in shares]))
        yield "largest_weight", float(np.mean([float(share.max()) for share in shares]))


def _evaluated(session: SearchSession, mixing: Mixing) -> dict[str, float]:
    with _left_alone(session):
        return session.task.evaluate(session.supernet.at(mixing))


@contextmanager
def _left_alone(session: SearchSession) -> Iterator[None]:
    """The supernet is as before afterwards, and what it draws at random follows from seed and epoch alone."""
    with preserve(session.supernet), seeded(derive_seed(session.seed, "monitored", session.epoch)):
        yield
