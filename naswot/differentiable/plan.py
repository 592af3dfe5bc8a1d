"""A search by one supernet as a composition: which relaxation, which architect, what is perturbed, when it ends.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, whose constants are the
defaults. Original code: github.com/quark0/darts.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR, LRScheduler

from naswot.differentiable.architects import Architect, FirstOrder
from naswot.differentiable.relaxations import Clock, Relaxation, Softmax
from naswot.errors import OptionError
from naswot.supernet import MixedSupernet, Mixing
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession
    from naswot.differentiable.tasks import Task


class Perturbation(ABC):
    """Changes the weights of a mixing for one step of the network's weights; the alphas themselves stay."""

    @abstractmethod
    def __call__(
        self, mixing: Mixing, supernet: MixedSupernet, clock: Clock, loss: Callable[[Mixing], Tensor]
    ) -> Mixing:
        """The mixing to train at.

        Args:
            mixing: unperturbed.
            supernet: in training mode; left so.
            clock: for the radius.
            loss: of the batch of this step at a mixing.
        """


class Resource(ABC):
    """Adds to the loss of the architecture what its networks cost."""

    def begin(self, supernet: MixedSupernet, task: Task) -> None:  # noqa: B027
        """Work out what each option costs."""

    @abstractmethod
    def add(self, loss: Tensor, supernet: MixedSupernet, mixing: Mixing) -> Tensor:
        """The loss with the cost in it, () with a graph."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept to go on with the same costs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a state."""


class Hook:
    """Something that is done at the turns of a search; a part that needs one turn only overrides that."""

    @property
    def keeps(self) -> int:
        """How many epochs' states are kept for :meth:`~naswot.differentiable.session.SearchSession.rewind`."""
        return 0

    @property
    def returns(self) -> int:
        """How many epochs back it may say that the result lies."""
        return 0

    def allowed(self, session: SearchSession) -> dict[str, Tensor] | None:  # noqa: ARG002
        """Options that are to be left, by group, judged before the search; None: all.

        The session has no supernet yet, but :meth:`~naswot.differentiable.session.SearchSession.build_supernet`.
        """
        return None

    def begin_stage(self, session: SearchSession) -> None:
        """Before the first epoch of each stage, when the supernet is built and the alphas have their first values."""

    def before_epoch(self, session: SearchSession) -> None:
        """Before each epoch."""

    def after_epoch(self, session: SearchSession) -> None:
        """After each epoch, when its row of the history is complete; may end the search or go back in it."""


class Selection(ABC):
    """Reads the architecture off when the search is over."""

    needs_search: ClassVar[bool] = True
    """Whether there must be epochs before it; a plan without any has one stage of 0 epochs."""
    needs_mixture: ClassVar[bool] = False
    """Whether it needs a relaxation at whose expected weights the network means something."""
    needs_alphas: ClassVar[bool] = True
    """Whether it reads architectures off what a relaxation tells."""
    needs_state: ClassVar[bool] = False
    """Whether it needs the supernet of the epoch that counts, also where that is not the last one."""

    def begin(self, session: SearchSession) -> None:  # noqa: B027
        """Refuse, before the first epoch, what could not be selected by after the last one."""

    @abstractmethod
    def select(self, session: SearchSession) -> Genotype:
        """The architecture."""


@dataclass(frozen=True)
class Magnitude(Selection):
    """The rule of the space on the weights that the alphas tell: after a normal end those of the last epoch."""

    def select(self, session: SearchSession) -> Genotype:
        """The architecture of the epoch that the search returns to, which is the last unless it stopped early."""
        return session.genotype_of_result()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the epochs with a supernet of its own.

    Args:
        epochs: of this stage.
        warmup: first epochs in which only weights are trained.
        more_cells: cells beyond those asked for.
        keep: operations of each row that the next stage goes on with, those of largest weight; None: all.
        skip_dropout: dropout behind identities.
    """

    epochs: int = 50
    warmup: int = 0
    more_cells: int = 0
    keep: int | None = None
    skip_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WeightSteps:
    """SGD of the weights: learning rate by epochs, clipping, decay.

    Args:
        learning_rate: of the first epoch.
        final_learning_rate: where the schedule of a stage ends.
        schedule: ``"cosine"``, ``"linear"``, or ``"cosine_restarts"``: cycles that begin anew, each twice as long as
            the one before.
        cycles: of restarts.
        momentum: of SGD.
        nesterov: its kind.
        weight_decay: of SGD.
        clip_norm: largest norm of the gradient; None: any.
    Raises:
        OptionError: if there is no such schedule.
    """

    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    schedule: Literal["cosine", "linear", "cosine_restarts"] = "cosine"
    cycles: int = 4
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip_norm: float | None = 5.0

    def __post_init__(self) -> None:
        known = ("cosine", "linear", "cosine_restarts")
        if self.schedule not in known or self.cycles < 1:
            raise OptionError(
                f"expected a schedule of {', '.join(known)} with at least one cycle, but got {self.schedule!r} with "
                f"{self.cycles}"
            )

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float | None = None) -> Optimizer:
        """SGD of some parameters, at the first learning rate or another one."""
        return torch.optim.SGD(
            parameters,
            self.learning_rate if learning_rate is None else learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def scheduler(self, optimizer: Optimizer, epochs: int) -> LRScheduler:
        """The schedule of a stage, to be stepped after each epoch."""
        if self.schedule == "linear":
            return LinearLR(optimizer, 1.0, self.final_learning_rate / self.learning_rate, total_iters=epochs)
        if self.schedule == "cosine":
            return CosineAnnealingLR(optimizer, epochs, eta_min=self.final_learning_rate)
        first = max(1, round(epochs / (2**self.cycles - 1)))
        return CosineAnnealingWarmRestarts(optimizer, first, T_mult=2, eta_min=self.final_learning_rate)


@dataclass(frozen=True, kw_only=True)
class AlphaSteps:
    """Adam of the architecture parameters; ``every`` so many steps of the weights."""

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    clip_norm: float | None = None
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A method, complete but for space, data and seed; another one is had by :func:`dataclasses.replace`.

    Args:
        relaxation: from alphas to weights of the options.
        architect: gradient of the alphas; None where they do not learn by gradient.
        perturbation: of the weights of options in the steps of the network's weights.
        partial: K of partial channels.
        edge_normalisation: weigh the edges of a node against each other.
        stages: one after the other.
        hooks: regularisers, stopping rules, priors.
        resource: cost in the loss of the architecture.
        selection: reads the architecture off at the end.
        weights: steps of the weights.
        alphas: steps of the architecture parameters.
        batch_size: N of both.
        valid_fraction: share of the training images that the architecture learns from.
        label_smoothing: of the loss, in steps of the weights and of the alphas.
        build: options of the supernet that belong to the method.
    Raises:
        OptionError: if parts do not go together.
    """

    relaxation: Relaxation = field(default_factory=Softmax)
    architect: Architect | None = field(default_factory=FirstOrder)
    perturbation: Perturbation | None = None
    partial: int = 1
    edge_normalisation: bool = False
    stages: tuple[Stage, ...] = (Stage(),)
    hooks: tuple[Hook, ...] = ()
    resource: Resource | None = None
    selection: Selection = field(default_factory=Magnitude)
    weights: WeightSteps = field(default_factory=WeightSteps)
    alphas: AlphaSteps = field(default_factory=AlphaSteps)
    batch_size: int = 64
    valid_fraction: float = 0.5
    label_smoothing: float = 0.0
    build: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.perturbation is not None and not self.relaxation.soft:
            raise OptionError(
                f"{type(self.perturbation).__name__} perturbs weights that are all positive, as those of Softmax, but "
                f"those of {type(self.relaxation).__name__} are not; leave one of the two out"
            )
        if self.perturbation is not None and self.architect is not None and self.architect.single_level:
            raise OptionError(
                f"{type(self.perturbation).__name__} perturbs the steps of the weights only, but with "
                f"{type(self.architect).__name__} these are those of the alphas too; take FirstOrder"
            )
        if self.resource is not None and self.architect is None:
            raise OptionError("a resource term is part of the architect's loss, but there is no architect")
        if self.selection.needs_mixture and not self.relaxation.mixed:
            raise OptionError(
                f"{type(self.selection).__name__} looks at the mixture of all options, which means nothing under "
                f"{type(self.relaxation).__name__}; take another one of the two"
            )
        if self.selection.needs_alphas and not self.relaxation.tells:
            raise OptionError(
                f"{type(self.selection).__name__} reads off what the alphas tell, but {type(self.relaxation).__name__} "
                "has none that tell an architecture; take a selection that compares several, such as BestOf"
            )
        if any(s.keep is not None and s.keep < (1 if s is self.stages[-1] else 2) for s in self.stages):
            raise OptionError(
                "expected every stage but the last to keep at least 2 operations, so that the next one can choose, but "
                f"got keep={[stage.keep for stage in self.stages]}"
            )
        untrained = not self.selection.needs_search and [stage.epochs for stage in self.stages] == [0]
        if not untrained and (not self.stages or min(stage.epochs for stage in self.stages) < 1):
            raise OptionError(f"expected stages of at least one epoch each, but got {self.stages}")

    @property
    def epochs(self) -> int:
        """Of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def supernet_options(self) -> dict[str, Any]:
        """Options of the supernet that belong to the method."""
        own = {"partial": self.partial} if self.partial > 1 else {}
        return {**own, **({"edge_normalisation": True} if self.edge_normalisation else {}), **dict(self.build)}

    def lasting(self, epochs: int) -> SearchPlan:
        """The same with another number of epochs in all; stages and warm-ups keep their shares, rounded.

        A plan of no epochs stays as it is.

        Raises:
            OptionError: if there are fewer epochs than stages.
        """
        if self.epochs == 0:
            return self
        if epochs < len(self.stages):
            raise OptionError(f"expected at least one epoch for each of {len(self.stages)} stages, but got {epochs}")
        bounds = [0]
        for number in range(1, len(self.stages) + 1):
            share = sum(s.epochs for s in self.stages[:number]) * epochs / self.epochs
            latest = epochs - (len(self.stages) - number)
            bounds.append(min(latest, max(bounds[-1] + 1, round(share))))
        lengths = [b - a for a, b in pairwise(bounds)]
        stages = tuple(
            replace(stage, epochs=n, warmup=min(n - 1, math.floor(stage.warmup * n / stage.epochs)))
            for stage, n in zip(self.stages, lengths, strict=True)
        )
        return replace(self, stages=stages)

    def describe(self) -> dict[str, object]:
        """Everything that determines the numbers, as plain values."""
        found: dict[str, object] = _plain(self)
        return found


def _plain(value: Any) -> Any:
    """Dataclasses as mappings with the name of their class, all else as it is or by its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
        return {"": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__
