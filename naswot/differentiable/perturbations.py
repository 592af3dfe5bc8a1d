"""Perturbations: the weights of a supernet learn at mixings beside that which the alphas tell.

Paper: Chen & Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020,
arXiv:2002.05283 (SDARTS). Original code: github.com/xiangning-chen/SmoothDARTS, ``attacker/perturb.py``. Differences:
the alphas are never overwritten, as the mixing is a value of its own; options that are not allowed stay out; weights of
edges (partial channels) stay clean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from naswot.differentiable.architects import gradient
from naswot.differentiable.plan import Perturbation
from naswot.differentiable.relaxations import Clock
from naswot.errors import OptionError
from naswot.preserve import in_mode
from naswot.supernet import MixedSupernet, Mixing

START: Final = 0.03
END: Final = 0.3

Tables = dict[str, Tensor]
"""Of each operation group by name: (rows, options) float32."""


@dataclass(frozen=True)
class RandomSmoothing(Perturbation):
    """SDARTS-RS: uniform noise on the weights of the operations, drawn anew in each step.

    Args:
        start: radius in the first epoch.
        end: radius that the epochs lead to.
    Raises:
        OptionError: if a radius is negative.
    """

    start: float = START
    end: float = END

    def __post_init__(self) -> None:
        _check(self.start, self.end, 1)

    def __call__(
        self,
        mixing: Mixing,
        supernet: MixedSupernet,
        clock: Clock,
        loss: Callable[[Mixing], Tensor],  # noqa: ARG002
    ) -> Mixing:
        """The mixing with noise."""
        noisy = smoothed(operation_tables(mixing, supernet), supernet, radius(clock, self.start, self.end))
        return replaced(mixing, noisy)


@dataclass(frozen=True)
class Adversarial(Perturbation):
    """SDARTS-ADV: the weights of the operations at which the loss is largest, sought by projected gradient ascent.

    The search begins at a random point of the ball and runs in evaluation mode, so that running statistics neither
    change nor depend on the attack. If what it ends at has a smaller loss than the unperturbed mixing, that is taken.

    Args:
        start: radius in the first epoch.
        end: radius that the epochs lead to.
        steps: of the ascent, each of 2 radius / steps along the sign of the gradient.
    Raises:
        OptionError: if a radius is negative, or there is no step.
    """

    start: float = START
    end: float = END
    steps: int = 7

    def __post_init__(self) -> None:
        _check(self.start, self.end, self.steps)

    def __call__(
        self, mixing: Mixing, supernet: MixedSupernet, clock: Clock, loss: Callable[[Mixing], Tensor]
    ) -> Mixing:
        """The mixing of the attack, or the same one if it failed."""
        size = radius(clock, self.start, self.end)
        centre = operation_tables(mixing, supernet)
        with in_mode(supernet, "eval"):
            before = value_at(mixing, loss)
            found = smoothed(centre, supernet, size)
            for _ in range(self.steps):
                found = self._ascended(found, centre, size, mixing, supernet, loss)
            attacked = replaced(mixing, found)
            after = value_at(attacked, loss)
        return attacked if after >= before else mixing

    def _ascended(
        self,
        tables: Tables,
        centre: Tables,
        size: float,
        mixing: Mixing,
        supernet: MixedSupernet,
        loss: Callable[[Mixing], Tensor],
    ) -> Tables:
        leaves = {name: table.requires_grad_() for name, table in tables.items()}
        slopes = gradient(loss(replaced(mixing, leaves)), list(leaves.values()))
        moved = {}
        for (name, table), slope in zip(leaves.items(), slopes, strict=True):
            ahead = table.detach() + 2.0 * size / self.steps * slope.sign()
            moved[name] = on_simplex(within(ahead, centre[name], size), supernet.allowed(name))
        return moved


# --------------------------------------------------------------------------------------------------------- their pieces


def radius(clock: Clock, start: float = START, end: float = END) -> float:
    """Radius of an epoch: ``start`` in the first, then linear; ``end`` would be that of the epoch after the last."""
    return start + (end - start) * clock.epoch / clock.epochs


def operation_tables(mixing: Mixing, supernet: MixedSupernet) -> Tables:
    """Weights of the groups of operations, without a gradient; not those of edges."""
    return {group.name: mixing.weights[group.name].detach() for group in supernet.operation_groups}


def replaced(mixing: Mixing, tables: Tables) -> Mixing:
    """The mixing with other weights in some groups."""
    return dataclasses.replace(mixing, weights={**mixing.weights, **tables})


def smoothed(tables: Tables, supernet: MixedSupernet, size: float) -> Tables:
    """Uniform noise of [-size, size] on each weight, and back to the simplex."""
    return {
        name: on_simplex(table + torch.empty_like(table).uniform_(-size, size), supernet.allowed(name))
        for name, table in tables.items()
    }


def within(table: Tensor, centre: Tensor, size: float) -> Tensor:
    """No entry further than ``size`` from the centre."""
    return centre + (table - centre).clamp(-size, size)


def on_simplex(table: Tensor, allowed: Tensor) -> Tensor:
    """Rows made weights again: cut to [0, 1], divided by their sum.

    Args:
        table: (rows, options).
        allowed: (rows, options) bool; all others become 0.
    Returns:
        (rows, options); a row of which nothing is left has 1 at what was its largest entry.
    """
    cut = table.clamp(0.0, 1.0).masked_fill(~allowed, 0.0)
    largest = table.masked_fill(~allowed, -torch.inf).argmax(dim=1)
    alone = torch.nn.functional.one_hot(largest, table.shape[1]).to(table.dtype)
    cut = torch.where(cut.sum(dim=1, keepdim=True) == 0.0, alone, cut)
    return cut / cut.sum(dim=1, keepdim=True)


@torch.no_grad()
def value_at(mixing: Mixing, loss: Callable[[Mixing], Tensor]) -> float:
    """Loss at a mixing."""
    return float(loss(mixing))


def _check(start: float, end: float, steps: int) -> None:
    if min(start, end) < 0.0 or steps < 1:
        raise OptionError(
            f"expected radii of at least 0 and at least one step of the attack, but got {start}, {end}, {steps} steps"
        )
