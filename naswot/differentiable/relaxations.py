"""Relaxations: from architecture parameters to the weights by which a supernet mixes its options.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055 (softmax). Original code:
github.com/quark0/darts. Differences: options that a row does not have, or that are no longer allowed, weigh 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from naswot.supernet import Group, MixedSupernet, Mixing
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


class Clock(NamedTuple):
    """Where a stage of a search stands.

    Args:
        epoch: from 0.
        epochs: of the stage.
    """

    epoch: int
    epochs: int

    def linear(self, start: float, end: float) -> float:
        """A value that goes from ``start`` in the first epoch to ``end`` in the last."""
        return start + (end - start) * self.epoch / max(1, self.epochs - 1)


class Relaxation(ABC):
    """How architecture parameters become a mixing, once for steps of the weights and once for those of the alphas.

    Random numbers come from the global generator of torch, which a session starts and restores.
    """

    soft: ClassVar[bool] = False
    """Whether the weights of training are those that the parameters tell, all of them positive, so that they can be
    perturbed."""
    mixed: ClassVar[bool] = True
    """Whether the network at :meth:`expected` weights means anything; otherwise single paths are looked at."""

    tells: ClassVar[bool] = True
    """Whether its parameters tell an architecture."""

    def initial(self, group: Group) -> Tensor:
        """First values of the parameters of a group, (rows, options): small and normal, as in DARTS."""
        return 1e-3 * torch.randn(group.shape)

    def expected(self, supernet: MixedSupernet) -> dict[str, Tensor]:
        """Weights that the parameters tell now, without randomness or gradient; larger is better.

        They are what architectures are read from and what is monitored.
        """
        with torch.no_grad():
            return {name: table.detach() for name, table in softmax_weights(supernet).items()}

    def genotype(self, supernet: MixedSupernet) -> Genotype | None:
        """The architecture that the parameters tell now; None where they tell none."""
        return supernet.derive(self.expected(supernet))

    @abstractmethod
    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """Mixing of one step of the weights; no gradient reaches the alphas."""

    @abstractmethod
    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """Mixing of one step of the alphas, which a gradient reaches through it."""

    def before_step(self, supernet: MixedSupernet) -> None:  # noqa: B027
        """Do what belongs before the optimizer changes the alphas."""

    def after_step(self, supernet: MixedSupernet) -> None:  # noqa: B027
        """Do what belongs after a step of the alphas, such as a projection."""

    def after_epoch(self, session: SearchSession) -> None:  # noqa: B027
        """Learn what is learned once in an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept, beside the alphas, to go on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a state."""


@dataclass(frozen=True)
class Softmax(Relaxation):
    """The softmax of each row, the same for both kinds of steps."""

    soft: ClassVar[bool] = True

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """All options, each with its softmax weight."""
        return Mixing(self.expected(supernet))

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """The same with a gradient."""
        return Mixing(softmax_weights(supernet))


def masked(supernet: MixedSupernet, group: Group) -> Tensor:
    """Parameters of a group, -inf where there is no option."""
    alphas: Tensor = supernet.alphas[group.name]
    return alphas.masked_fill(~supernet.allowed(group.name), -torch.inf)


def softmax_weights(supernet: MixedSupernet) -> dict[str, Tensor]:
    """The softmax of every row of every group, those of edges included."""
    return {group.name: torch.softmax(masked(supernet, group), dim=1) for group in supernet.groups}


def edge_weights(supernet: MixedSupernet) -> dict[str, Tensor]:
    """The softmax of the rows that weigh edges: what other relaxations than the softmax use for these too."""
    return {g.name: torch.softmax(masked(supernet, g), dim=1) for g in supernet.groups if g.kind == "edge"}


def equal_weights(supernet: MixedSupernet) -> dict[str, Tensor]:
    """The same weight for each allowed option of a row, of every group."""
    allowed = {group.name: supernet.allowed(group.name).float() for group in supernet.groups}
    return {name: table / table.sum(1, keepdim=True) for name, table in allowed.items()}
