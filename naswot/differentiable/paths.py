"""Relaxations that train single paths: uniform ones, and those of a template that judges them.

Papers: Li & Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv:1902.07638
(uniform paths); Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020,
arXiv:1904.00420 (within a window of costs); Dong & Yang, One-Shot Neural Architecture Search via Self-Evaluated
Template Network, ICCV 2019, arXiv:1910.05733 (the template). Original codes: github.com/liamcli/randomNAS_release,
github.com/megvii-model/SinglePathOneShot, github.com/D-X-Y/AutoDL-Projects. Differences: a path is an architecture of
the space, so that a node of a DARTS cell has two inputs and none of them is the operation none; the template's step of
the alphas comes before that of the weights, as in all searches here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from naswot.constraints import ConstrainedSpace, Cost
from naswot.differentiable.relaxations import Clock, Relaxation, softmax_weights
from naswot.errors import OptionError
from naswot.seeding import numpy_generator
from naswot.space import SearchSpace
from naswot.supernet import Group, MixedSupernet, Mixing
from naswot.types import Genotype

_TRIES: Final = 1000  # architectures from what a supernet holds, none of them affordable, after which limits are told
_LEFT_OUT: Final = "options that were left out"


@dataclass(frozen=True)
class CostWindow:
    """From where to where a cost may lie; each architecture is asked for once.

    Args:
        name: of the cost, such as ``"flops"``.
        cost: gives it, such as those of :func:`naswot.constraints.network_costs`.
        low: the least that is allowed; None: anything.
        high: the most; None: anything.
    Raises:
        OptionError: if there is no limit, one is not positive, or they leave nothing between them.
    """

    name: str
    cost: Cost = field(repr=False)
    low: float | None = None
    high: float | None = None
    _known: dict[Genotype, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        if not limits or not all(limit > 0 for limit in limits) or limits != sorted(limits):
            raise OptionError(
                f"expected a window of {self.name} with a limit above 0, low before high, but got low={self.low} and "
                f"high={self.high}"
            )

    def __call__(self, genotype: Genotype) -> float:
        """What an architecture costs."""
        if genotype not in self._known:
            self._known[genotype] = self.cost(genotype)
        return self._known[genotype]


class OpenSpace(ConstrainedSpace):
    """The architectures that a supernet can be: of options that it holds, and within some windows of costs.

    Args:
        supernet: of the whole space.
        windows: of costs.
    """

    def __init__(self, supernet: MixedSupernet, windows: tuple[CostWindow, ...] = ()) -> None:
        limits: dict[str, float] = {}
        costs: dict[str, Cost] = {}
        self._supernet = supernet
        self._whole = all(bool((supernet.allowed(g.name).cpu() == g.present()).all()) for g in supernet.groups)
        if not self._whole:
            limits[_LEFT_OUT], costs[_LEFT_OUT] = 0.5, self._left_out  # first, as it is cheap
        for window in windows:
            if window.high is not None:
                limits[window.name], costs[window.name] = window.high, window
            if window.low is not None:
                name = f"{window.low:,.6g} / {window.name}"
                limits[name], costs[name] = 1.0, _Shortage(window)
        super().__init__(supernet.space, limits, costs)

    def _left_out(self, genotype: Genotype) -> float:
        """How many of its options the supernet does not hold."""
        tables = self._supernet.chosen(genotype)
        return float(sum(int((table.cpu() > 0)[~self._supernet.allowed(n).cpu()].sum()) for n, table in tables.items()))

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A random architecture; where options were left out, that of random strengths of the others.

        Raises:
            OptionError: if none of 1,000 is within the limits.
        """
        if self._whole:
            return super().sample(rng)
        for _ in range(_TRIES):
            genotype = self._supernet.derive(self._strengths(rng))
            if self.is_valid(genotype):
                return genotype
        raise OptionError(
            f"none of {_TRIES:,} random architectures of the options that are left of {self.name} is within "
            f"{', '.join(f'{what} <= {limit:,.6g}' for what, limit in self.limits.items() if what != _LEFT_OUT)}; "
            "relax the limits or leave more options"
        )

    def _strengths(self, rng: np.random.Generator) -> dict[str, Tensor]:
        tables = {g.name: torch.from_numpy(rng.random(g.shape)).float() for g in self._supernet.groups}
        return {name: table * self._supernet.allowed(name).cpu() for name, table in tables.items()}


@dataclass(frozen=True)
class _Shortage:
    """How far a cost lies below its window: above 1 where it does."""

    window: CostWindow

    def __call__(self, genotype: Genotype) -> float:
        cost = self.window(genotype)
        return (self.window.low or 0.0) / cost if cost > 0 else float("inf")


def open_space(supernet: MixedSupernet, windows: tuple[CostWindow, ...] = ()) -> SearchSpace:
    """The space of a supernet, or that part of it which its options and some windows of costs leave."""
    space = OpenSpace(supernet, windows)
    return space if space.limits else supernet.space


def generator_from_torch() -> np.random.Generator:
    """Generator of numpy that is started by the global generator of torch, whose state a checkpoint keeps."""
    return numpy_generator(int(torch.randint(2**62, ())))


@runtime_checkable
class Proposes(Protocol):
    """A relaxation that tells which architectures come into question when the search is over."""

    def candidate(self, supernet: MixedSupernet) -> Genotype:
        """The next one, drawn with the global generator of torch."""
        ...


def drawn_from_alphas(supernet: MixedSupernet, expected: dict[str, Tensor]) -> Genotype:
    """An architecture drawn from the weights that the alphas tell.

    Each row draws one of its options with these probabilities, by the largest logarithm with Gumbel noise; a space that
    takes only some of the rows takes those whose draws are strongest.

    Args:
        supernet: reads the architecture off.
        expected: (rows, options) probabilities by group.
    """
    strengths = {}
    for name, table in expected.items():
        noise = -torch.empty(table.shape).exponential_().log()
        strengths[name] = torch.softmax(table.cpu().log() + noise, dim=1)
    return supernet.derive(strengths)


@dataclass(frozen=True)
class UniformPath(Relaxation):
    """One architecture for each batch, drawn uniformly; there is nothing that the alphas would learn.

    Args:
        windows: costs within which the architectures have to lie.
    """

    mixed: ClassVar[bool] = False
    tells: ClassVar[bool] = False

    windows: tuple[CostWindow, ...] = ()

    def initial(self, group: Group) -> Tensor:
        """Zeros: all options alike."""
        return torch.zeros(group.shape)

    def genotype(self, supernet: MixedSupernet) -> Genotype | None:  # noqa: ARG002
        """None: whoever selects compares several by the weights of the supernet."""
        return None

    def path(self, supernet: MixedSupernet) -> Genotype:
        """The next architecture to be trained.

        Raises:
            OptionError: if next to none lies within the windows.
        """
        return open_space(supernet, self.windows).sample(generator_from_torch())

    def candidate(self, supernet: MixedSupernet) -> Genotype:
        """One that comes into question when the search is over: uniformly drawn too."""
        return self.path(supernet)

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """The options of one architecture, and nothing else."""
        return supernet.mixing_of(self.path(supernet))

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """The same: no gradient reaches the alphas."""
        return self.for_weights(supernet, clock)


@dataclass(frozen=True)
class TemplatePath(UniformPath):
    """Uniform paths for the weights; alphas learn from the template of all options, mixed by their softmax."""

    mixed: ClassVar[bool] = True
    tells: ClassVar[bool] = True

    def initial(self, group: Group) -> Tensor:
        """Small and normal."""
        return Relaxation.initial(self, group)

    def genotype(self, supernet: MixedSupernet) -> Genotype | None:
        """The likeliest architecture."""
        return Relaxation.genotype(self, supernet)

    def candidate(self, supernet: MixedSupernet) -> Genotype:
        """An architecture drawn from the softmax of the alphas, within the windows.

        Raises:
            OptionError: if none of 1,000 is.
        """
        space, expected = open_space(supernet, self.windows), self.expected(supernet)
        for _ in range(_TRIES):
            genotype = drawn_from_alphas(supernet, expected)
            if space.is_valid(genotype):
                return genotype
        raise OptionError(
            f"none of {_TRIES:,} architectures of {space.name} drawn from the alphas lies within {self.windows}; "
            "relax the windows"
        )

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """All options, each with its softmax weight."""
        return Mixing(softmax_weights(supernet))
