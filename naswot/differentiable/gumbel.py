"""Relaxations by Gumbel noise: soft samples (SNAS), and one operation at a time (GDAS).

Papers: Xie et al., SNAS: Stochastic Neural Architecture Search, ICLR 2019, arXiv:1812.09926; Dong & Yang, Searching for
a Robust Neural Architecture in Four GPU Hours, CVPR 2019, arXiv:1910.04465. Original codes:
github.com/SNAS-Series/SNAS-Series, github.com/D-X-Y/AutoDL-Projects. Differences: weights of edges, where a supernet
has them, are a softmax without noise; the architecture is read off by the rule of the space, so that ``none`` leaves an
edge out where that rule lets it (NAS-Bench-201), while the original SNAS keeps all edges of a DARTS cell; a hard sample
is exactly 1 and 0 in value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from naswot.differentiable.relaxations import Clock, Relaxation, edge_weights, masked
from naswot.errors import OptionError
from naswot.supernet import Group, MixedSupernet, Mixing


@dataclass(frozen=True)
class GumbelSoftmax(Relaxation):
    r"""SNAS: a sample of the concrete distribution of each row, shared by all cells and all images of a batch.

    .. math:: Z = \mathrm{softmax}((\alpha + g) / \tau), \quad g \sim \mathrm{Gumbel}(0, 1)

    Args:
        start: temperature of the first epoch.
        end: temperature of the last epoch; linear between.
    Raises:
        OptionError: if a temperature is not above 0.
    References:
        Xie et al., SNAS, ICLR 2019, arXiv:1812.09926, Eq. 3 to 6.
    """

    start: float = 1.0
    end: float = 0.03

    def __post_init__(self) -> None:
        _check_temperatures(self.start, self.end)

    def initial(self, group: Group) -> Tensor:
        """First values, (rows, options): normal around 1 with a deviation of 0.01."""
        return 1.0 + 0.01 * torch.randn(group.shape)

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """One sample, all options executed."""
        with torch.no_grad():
            return self.for_architecture(supernet, clock)

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """One sample, through which a gradient reaches the alphas."""
        temperature = clock.linear(self.start, self.end)
        samples = {
            group.name: torch.softmax(noisy_logits(supernet, group) / temperature, dim=1)
            for group in supernet.operation_groups
        }
        return Mixing(samples | edge_weights(supernet))


@dataclass(frozen=True)
class HardGumbel(Relaxation):
    """GDAS: the strongest option of each sample alone is executed; the gradient is that of the soft sample.

    The options that are not executed are there as numbers of value 0, through which a gradient reaches their alphas.

    Args:
        start: temperature of the first epoch.
        end: temperature of the last epoch; linear between.
    Raises:
        OptionError: if a temperature is not above 0.
    References:
        Dong & Yang, CVPR 2019, arXiv:1910.04465, Eq. 3 to 6.
    """

    mixed: ClassVar[bool] = False
    start: float = 10.0
    end: float = 0.1

    def __post_init__(self) -> None:
        _check_temperatures(self.start, self.end)

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """One option of each row."""
        with torch.no_grad():
            return self.for_architecture(supernet, clock)

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """One option of each row; all alphas get the gradient of the soft sample."""
        temperature = clock.linear(self.start, self.end)
        weights, active = dict(edge_weights(supernet)), {}
        for group in supernet.operation_groups:
            soft = torch.softmax(noisy_logits(supernet, group) / temperature, dim=1)
            hard = one_hot_of_largest(soft)
            weights[group.name] = straight_through(hard, soft)
            active[group.name] = executed(hard > 0)
        return Mixing(weights, active, inactive_weights=True)


def noisy_logits(supernet: MixedSupernet, group: Group) -> Tensor:
    """(rows, options) log of the softmax plus Gumbel noise, -inf where there is no option.

    The largest of a row is a draw from its softmax; the k largest are k draws without replacement.
    """
    logits = torch.log_softmax(masked(supernet, group), dim=1)
    while True:
        noise = -torch.empty_like(logits).exponential_().log()
        if bool(torch.isfinite(noise).all()):  # an exponential draw may round to 0
            return logits + noise


def one_hot_of_largest(values: Tensor) -> Tensor:
    """(rows, options) 1 at the largest of each row and 0 elsewhere, without a gradient."""
    return F.one_hot(values.detach().argmax(1), values.shape[1]).to(values.dtype)


def straight_through(value: Tensor, gradient_of: Tensor) -> Tensor:
    """A tensor of exactly this value, and of the gradient of another one."""
    return value + (gradient_of - gradient_of.detach())


def executed(taken: Tensor) -> tuple[tuple[int, ...], ...]:
    """Options of each row that are True in (rows, options) bool."""
    return tuple(tuple(row.nonzero()[:, 0].tolist()) for row in taken)


def _check_temperatures(start: float, end: float) -> None:
    if not min(start, end) > 0.0:
        raise OptionError(f"expected temperatures above 0, but got start={start} and end={end}")
