"""The supernet: one network that holds the weights of all architectures of a space, and how they are mixed.

A supernet says nothing of how a search goes about it. Its decisions come in groups, tables of which each row is one
decision; a :class:`Mixing` gives each option of each row its weight, already on the simplex where there is one, and the
network does the rest. So every relaxation, perturbation and discretisation is a way to make a mixing.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.registry import Registry
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype

Weights = Mapping[str, Tensor]
"""Of each group by name: (rows, options) float32; 0 where a row has no such option."""

Allowed = Mapping[str, Tensor]
"""Of each group by name: (rows, options) bool."""

Active = Mapping[str, tuple[tuple[int, ...], ...]]
"""Of each group by name: the options of each row that are executed."""

Kind = Literal["operation", "edge"]


class Supernet(Protocol):
    """One network that holds the weights of all architectures of a space."""

    @property
    def space(self) -> SearchSpace:
        """The space whose architectures it holds."""
        ...

    def activate(self, genotype: Genotype) -> AbstractContextManager[nn.Module]:
        """The sub-network of an architecture, with the shared weights, while the context lasts."""
        ...

    def extract(self, genotype: Genotype) -> nn.Module:
        """A stand-alone copy of the sub-network."""
        ...


@dataclass(frozen=True)
class Group:
    """Decisions that share a table of architecture parameters: a row each, a column for each option.

    Args:
        name: such as ``"normal"``.
        options: names of the options of each row; rows may have different numbers of them.
        kind: ``"operation"``: one of the options of a row is taken; ``"edge"``: some of the inputs of a node are.
    """

    name: str
    options: tuple[tuple[str, ...], ...]
    kind: Kind = "operation"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and the largest number of options."""
        return len(self.options), max(map(len, self.options))

    def present(self) -> Tensor:
        """(rows, options) bool: whether a row has the option at all."""
        return torch.tensor([[i < len(row) for i in range(self.shape[1])] for row in self.options])


@dataclass(frozen=True)
class Mixing:
    """How much of each option goes into the network.

    Args:
        weights: of every group of kind operation; groups of kind edge that are not there count 1 for each edge.
        active: options that are executed, of groups named in it; all others are not even computed. None: all.
        inactive_weights: let the weight of an option that is not executed be added as a number, through which a
            gradient reaches it (as GDAS does, whose inactive weights are 0 in value).
    """

    weights: Weights
    active: Active | None = None
    inactive_weights: bool = False

    def row(self, group: str, row: int) -> tuple[Tensor, tuple[int, ...] | None]:
        """Weights of one row, and its executed options (None: all)."""
        active = None if self.active is None or group not in self.active else self.active[group][row]
        return self.weights[group][row], active


class MixedSupernet(nn.Module, ABC):
    """A supernet whose options are mixed by weights; subclasses write the network and how an architecture is read off.

    The architecture parameters ``alphas`` are Parameters, so that they are saved and moved with the network, but not
    among :meth:`weight_parameters`. They are zero until a relaxation gives them their first values.

    Args:
        space: the space whose architectures it holds.
        groups: its decisions.
        allowed: options by group, (rows, options) bool; others are not built. None: all that a row has.
    Attributes:
        partial: K of partial channels; 1 where all channels go through the operations.
    Raises:
        OptionError: if ``allowed`` has other shapes, leaves a row empty or allows what there is not.
    """

    alphas: nn.ParameterDict
    supports_partial: ClassVar[bool] = False
    """Whether it can be built with partial channels and edge normalisation."""

    def __init__(self, space: SearchSpace, groups: Sequence[Group], allowed: Allowed | None = None) -> None:
        super().__init__()
        self._space, self.groups, self.partial = space, tuple(groups), 1
        self.alphas = nn.ParameterDict({group.name: nn.Parameter(torch.zeros(group.shape)) for group in groups})
        for group in groups:
            self.register_buffer(f"allowed_{group.name}", _checked_allowed(group, allowed))

    # ----------------------------------------------------------------------------------------- what a supernet writes

    @abstractmethod
    def forward(self, inputs: Any, mixing: Mixing) -> Any:
        """Logits of a batch at a mixing."""

    @abstractmethod
    def derive(self, strengths: Weights) -> Genotype:
        """The architecture of largest strengths by the published rule of the space; ties go to the first option.

        Args:
            strengths: of all options by group, not negative: weights, or anything else that tells what to keep. Where
                a group of kind edge is missing, edges count by their operations alone.
        """

    @abstractmethod
    def chosen(self, genotype: Genotype) -> dict[str, Tensor]:
        """What an architecture takes: (rows, options) float32 of 0 and 1 by group; all 0 in rows that it leaves out."""

    # ----------------------------------------------------------------------------------------------- what all of it has

    @property
    def space(self) -> SearchSpace:
        """The space whose architectures it holds."""
        return self._space

    def allowed(self, group: str) -> Tensor:
        """(rows, options) bool: options of a group that can be taken."""
        found: Tensor = getattr(self, f"allowed_{group}")
        return found

    def takeable(self, strengths: Weights, group: str) -> Tensor:
        """(rows, options) on the CPU: strengths of the options of a group, -1 where one cannot be taken."""
        return strengths[group].cpu().masked_fill(~self.allowed(group).cpu(), -1.0)

    @property
    def operation_groups(self) -> tuple[Group, ...]:
        """Groups of which one option of each row is taken."""
        return tuple(group for group in self.groups if group.kind == "operation")

    def weight_parameters(self) -> list[nn.Parameter]:
        """All parameters but the architecture's."""
        own = {id(alpha) for alpha in self.alphas.values()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def architecture_parameters(self) -> list[nn.Parameter]:
        """The architecture's parameters, in the order of the groups."""
        return [self.alphas[group.name] for group in self.groups]

    def mixing_of(self, genotype: Genotype) -> Mixing:
        """The mixing at which the network is this architecture and nothing else is computed."""
        device = next(iter(self.alphas.values())).device
        weights = {name: table.to(device) for name, table in self.chosen(self.space.check(genotype)).items()}
        return only_chosen(weights)

    def at(self, mixing: Mixing) -> FixedSupernet:
        """The network at one mixing as a model of its own, with the same weights."""
        return FixedSupernet(self, mixing)

    @contextmanager
    def activate(self, genotype: Genotype) -> Iterator[nn.Module]:
        """The sub-network of an architecture, with the shared weights, while the context lasts."""
        yield self.at(self.mixing_of(genotype))

    def extract(self, genotype: Genotype) -> nn.Module:
        """A stand-alone copy of the sub-network: its weights, without those of other options or the alphas."""
        mixing = self.mixing_of(genotype)
        memo: dict[int, Any] = {}
        for edge in self.modules():
            if isinstance(edge, Alternatives):
                memo |= {id(module): _LEFT_OUT for module in edge.unused(mixing)}
        alone = copy.deepcopy(self, memo)
        alone.alphas = nn.ParameterDict()
        return FixedSupernet(alone, mixing)


class Alternatives(nn.Module, ABC):
    """A part of a supernet that holds several modules for one row of a group and runs some of them."""

    @abstractmethod
    def unused(self, mixing: Mixing) -> list[nn.Module]:
        """Modules that are not executed at a mixing."""


_LEFT_OUT = nn.Identity()  # what stands in a stand-alone copy in the place of modules that are never run


class FixedSupernet(nn.Module):
    """A supernet at one mixing: a model like any other, which takes the weights of the mixing along as buffers."""

    def __init__(self, supernet: MixedSupernet, mixing: Mixing) -> None:
        super().__init__()
        self.supernet = supernet
        self._mixing = mixing
        for name, table in mixing.weights.items():
            self.register_buffer(f"weights_{name}", table)

    @property
    def mixing(self) -> Mixing:
        """The mixing, where the model is."""
        return replace(self._mixing, weights={name: getattr(self, f"weights_{name}") for name in self._mixing.weights})

    def forward(self, inputs: Any) -> Any:
        """What the supernet gives."""
        return self.supernet(inputs, self.mixing)


def only_chosen(weights: Weights) -> Mixing:
    """The mixing that executes those options only whose weight is not 0."""
    active = {name: tuple(tuple(row.nonzero()[:, 0].tolist()) for row in table) for name, table in weights.items()}
    return Mixing(weights, active)


def _checked_allowed(group: Group, allowed: Allowed | None) -> Tensor:
    present = group.present()
    if allowed is None or group.name not in allowed:
        return present
    found = torch.as_tensor(allowed[group.name]).cpu().bool()
    if found.shape != present.shape or bool((found & ~present).any()) or not bool(found.any(1).all()):
        raise OptionError(
            f"expected for each of {group.shape[0]} rows of {group.name!r} at least one of its own options to be "
            f"allowed, as (rows, options) = {group.shape} bool, but got {tuple(found.shape)} with "
            f"{found.sum(-1).tolist()} options"
        )
    return found


supernets: Registry[type[MixedSupernet]] = Registry("supernet of the space", "naswot.supernets")


def register_supernet(*names: str) -> Any:
    """Class decorator: the supernet of the spaces of these names.

    The class is called with the space and the keywords ``n_classes``, ``in_channels``, ``allowed`` and whatever
    options it has.
    """

    def register(cls: type[MixedSupernet]) -> type[MixedSupernet]:
        for name in names:
            supernets.register(name, cls)
        return cls

    return register


def list_supernets(pattern: str = "*") -> list[str]:
    """Names of the spaces that have a supernet."""
    return supernets.names(pattern)


def make_supernet(
    space: SearchSpace | str,
    *,
    n_classes: int = 10,
    in_channels: int = 3,
    allowed: Allowed | None = None,
    **options: Any,
) -> MixedSupernet:
    """Untrained supernet of a space, initialised from the global generator of torch.

    Args:
        space: or its name.
        n_classes: number of logits K.
        in_channels: channels of the images, which may have any size.
        allowed: options by group, (rows, options) bool; others are not built. None: all.
        options: of the supernet, such as ``width`` and ``n_cells``.
    Raises:
        UnknownNameError: if the space has no supernet.
        OptionError: if the supernet has no such option, or it does not fit.
    """
    found = get_space(space) if isinstance(space, str) else space
    make: Any = supernets.get(found.name)
    given = {"n_classes": n_classes, "in_channels": in_channels, "allowed": allowed, **options}
    known = inspect.signature(make).parameters
    unknown = [name for name in given if name not in known]
    if unknown:
        offered = ", ".join(name for name in known if name not in ("space", "n_classes", "in_channels", "allowed"))
        raise OptionError(
            f"the supernet of {found.name} cannot be built with {', '.join(unknown)}; its options are {offered}"
        )
    model: MixedSupernet = make(found, **given)
    return model
