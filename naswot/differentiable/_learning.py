"""Steps of a search by a supernet: first the alphas, where it is their turn, then the weights.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, algorithm 1. Original code:
github.com/quark0/darts, ``cnn/train_search.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from naswot.differentiable.architects import Architect, Bilevel
from naswot.differentiable.relaxations import Clock, Relaxation
from naswot.errors import DivergedError
from naswot.supernet import MixedSupernet, Mixing

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from naswot.differentiable.plan import Resource, SearchPlan, Stage
    from naswot.differentiable.tasks import Pair, Task


class Learner:
    """What learns in a session: weights and alphas of a supernet, each with its optimizer.

    Attributes:
        supernet: of the present stage.
        relaxation: the plan's, with what it has learned.
        epoch: number of epochs done.
        valid_batches: number of validation batches that were learned from.
    """

    plan: SearchPlan
    task: Task
    supernet: MixedSupernet
    relaxation: Relaxation
    resource: Resource | None
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    epoch: int
    stage_number: int
    valid_batches: int

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self.plan.stages[self.stage_number]

    @property
    def clock(self) -> Clock:
        """Epoch within the present stage, that which runs or comes next."""
        before = sum(stage.epochs for stage in self.plan.stages[: self.stage_number])
        return Clock(self.epoch - before, self.stage.epochs)

    def begin_optimizers(self, epochs: int) -> None:
        """Optimizers for the present supernet, and the schedule of the weights' one."""
        slow = self.plan.alphas
        self.weight_optimizer = self.plan.weights.optimizer(self.supernet.weight_parameters())
        self.schedule = self.plan.weights.scheduler(self.weight_optimizer, epochs)
        self.alpha_optimizer = torch.optim.Adam(
            self.supernet.architecture_parameters(), slow.learning_rate, slow.betas, weight_decay=slow.weight_decay
        )

    def step(self, batch: Pair, number: int) -> float:
        """One step of the alphas, where it is their turn, then one of the weights; the training loss.

        Raises:
            DivergedError: if a loss or an alpha is not finite.
        """
        plan, clock, architect = self.plan, self.clock, self.plan.architect
        learns = architect is not None and clock.epoch >= self.stage.warmup and number % plan.alphas.every == 0
        together = learns and architect is not None and architect.single_level
        if learns and architect is not None and not together:
            self._architecture_step(architect, batch)
        mixing = (self.relaxation.for_architecture if together else self.relaxation.for_weights)(self.supernet, clock)
        if plan.perturbation is not None:
            mixing = plan.perturbation(mixing, self.supernet, clock, lambda other: self.loss(other, batch))
        loss = objective = self.loss(mixing, batch)
        if together and self.resource is not None:
            objective = self.resource.add(loss, self.supernet, mixing)
        value = float(loss.detach())
        self.check(math.isfinite(value), f"the training loss is {value}")
        self.weight_optimizer.zero_grad(set_to_none=True)
        self.alpha_optimizer.zero_grad(set_to_none=True)
        objective.backward()
        if plan.weights.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.supernet.weight_parameters(), plan.weights.clip_norm)
        self.weight_optimizer.step()
        if together:
            self._learn_alphas()
        return value

    def _architecture_step(self, architect: Architect, batch: Pair) -> None:
        group = self.weight_optimizer.param_groups[0]
        found, loss = architect.gradients(
            Bilevel(
                train_loss=lambda: self.loss(self._soft(), batch),
                valid_loss=self._valid_loss(self.task.valid_batch(self.valid_batches)),
                weights=self.supernet.weight_parameters(),
                alphas=self.supernet.architecture_parameters(),
                learning_rate=group["lr"],
                momentum=group["momentum"],
                weight_decay=group["weight_decay"],
                buffers=[
                    self.weight_optimizer.state.get(w, {}).get("momentum_buffer")
                    for w in self.supernet.weight_parameters()
                ],
                statistics=list(self.supernet.buffers()),
            )
        )
        self.valid_batches += 1
        self.check(math.isfinite(loss), f"the loss of the architecture is {loss}")
        for alpha, slope in zip(self.supernet.architecture_parameters(), found, strict=True):
            alpha.grad = slope
        self._learn_alphas()

    def _soft(self) -> Mixing:
        return self.relaxation.for_architecture(self.supernet, self.clock)

    def _valid_loss(self, batch: Pair) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            mixing = self._soft()
            found = self.loss(mixing, batch)
            return found if self.resource is None else self.resource.add(found, self.supernet, mixing)

        return loss

    def _learn_alphas(self) -> None:
        alphas = self.supernet.architecture_parameters()
        if self.plan.alphas.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(alphas, self.plan.alphas.clip_norm)
        self.relaxation.before_step(self.supernet)
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad(set_to_none=True)
        self.relaxation.after_step(self.supernet)
        finite = all(bool(torch.isfinite(alpha).all()) for alpha in alphas)
        self.check(finite, "an architecture parameter is no finite number")

    def check(self, good: bool, what: str) -> None:
        """Raise a DivergedError that says what is no finite number, unless all is good."""
        if not good:
            raise DivergedError(
                f"the search diverged: {what} in epoch {self.epoch + 1} of {self.plan.epochs}; the checkpoint of "
                f"the epoch before is kept; take a smaller learning rate than {self.plan.weights.learning_rate:g} "
                f"(weights) or {self.plan.alphas.learning_rate:g} (alphas), or a smaller clip_norm"
            )

    def loss(self, mixing: Mixing, batch: Pair) -> Tensor:
        """() loss of a batch at a mixing."""
        return self.task.loss(self.supernet, mixing, batch)
