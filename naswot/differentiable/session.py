"""One search by a supernet: its parts at work, one epoch after the other, and everything that has to be kept.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, algorithm 1. Original code:
github.com/quark0/darts, ``cnn/train_search.py``. Differences: batches are cycled through instead of drawn anew; a last
smaller batch is left out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from naswot.differentiable._learning import Learner
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.tasks import Task
from naswot.errors import OptionError
from naswot.seeding import derive_seed, random_state, seeded, set_random_state
from naswot.space import SearchSpace
from naswot.supernet import MixedSupernet, make_supernet, supernets
from naswot.supernets._edges import set_skip_dropout
from naswot.types import Genotype


class Monitor(Protocol):
    """Measures something after an epoch; it leaves no trace in the session."""

    @property
    def every(self) -> int:
        """Epochs between two measurements."""
        ...

    def measure(self, session: SearchSession) -> dict[str, Any]:
        """What it found, by name: numbers, or a text for the reader under a name that ends in ``warning``."""
        ...


class SearchSession(Learner):
    """A context in which a supernet is searched; afterwards the global random states are as they were.

    Args:
        space: has a supernet.
        task: what is learned.
        plan: how.
        seed: of everything random.
        build: options of the supernet, such as ``width`` and ``n_cells``.
        device: where it is trained.
        monitors: what is measured after the epochs.
    Attributes:
        epoch: number of epochs done; a search that went back has a longer history.
        history: one mapping for each epoch that was run.
        stopped: why the search ended before its last epoch.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        plan: SearchPlan,
        *,
        seed: int = 0,
        build: Mapping[str, Any] | None = None,
        device: str = "cpu",
        monitors: Sequence[Monitor] = (),
    ) -> None:
        self.space, self.task, self.plan, self.seed, self.device = space, task, plan, seed, device
        self.build, self.monitors = dict(build or {}), tuple(monitors)
        self.relaxation = copy.deepcopy(plan.relaxation)
        self.hooks, self.resource = copy.deepcopy(plan.hooks), copy.deepcopy(plan.resource)
        self.epoch = self.valid_batches = self.stage_number = 0
        self.history: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self.snapshots: dict[int, dict[str, Any]] = {}
        self._result_epoch: int | None = None
        self._allowed: dict[str, Tensor] | None = None
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._exit.enter_context(seeded(derive_seed(self.seed, "supernet search")))
        try:
            for hook in self.hooks:
                self._allowed = hook.allowed(self) or self._allowed
            self.begin_stage()
            self.plan.selection.begin(self)
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    # ------------------------------------------------------------------------------------------------------- its parts

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.stopped is not None or self.epoch >= self.plan.epochs

    def build_supernet(self) -> MixedSupernet:
        """An untrained supernet of the present stage, with the options that are allowed now."""
        options = {**self.plan.supernet_options, **self.task.build, **self.build}
        if self.stage.more_cells:
            if "n_cells" not in options:
                raise OptionError(f"stages with more cells need n_cells, which {self.space.name} has not been given")
            options["n_cells"] += self.stage.more_cells
        if self.plan.partial > 1 and not supernets.get(self.space.name).supports_partial:
            raise OptionError(
                f"partial channels do not suit the supernet of {self.space.name}; take a method without them, or one "
                f"of the spaces {', '.join(name for name, cls in supernets if cls.supports_partial)}"
            )
        supernet = make_supernet(self.space, allowed=self._allowed, **options)
        if not any(int(supernet.allowed(g.name).sum(1).max()) > 1 for g in supernet.groups):
            raise OptionError(f"every decision of {self.space.name} has one option only: there is nothing to search")
        return supernet

    def begin_stage(self) -> None:
        """Build supernet and optimizers of the present stage anew."""
        with seeded(derive_seed(self.seed, "supernet", self.stage_number)):
            self.supernet = self.build_supernet().to(self.device)
            for group in self.supernet.groups:
                self.supernet.alphas[group.name].data.copy_(self.relaxation.initial(group))
        self.begin_optimizers(self.stage.epochs)
        set_skip_dropout(self.supernet, self.stage.skip_dropout)
        if self.resource is not None:
            self.resource.begin(self.supernet, self.task)
        for hook in self.hooks:
            hook.begin_stage(self)

    # ------------------------------------------------------------------------------------------------------- one epoch

    def next_epoch(self) -> dict[str, Any]:
        """Train for one epoch and measure; the row that is added to the history."""
        if self.clock.epoch == self.clock.epochs:
            self._end_stage()
        for hook in self.hooks:
            hook.before_epoch(self)
        self.supernet.train()
        rate = self.weight_optimizer.param_groups[0]["lr"]
        total = 0.0
        for number, batch in enumerate(self.task.train_batches(self.epoch)):
            total += self.step(batch, number)
        self.schedule.step()
        self.relaxation.after_epoch(self)
        finite = all(bool(torch.isfinite(weight).all()) for weight in self.supernet.parameters())
        self.check(finite, "a weight is no finite number")
        self.epoch += 1
        row: dict[str, Any] = {
            "row": len(self.history) + 1,
            "epoch": self.epoch,
            "stage": self.stage_number,
            "train_loss": total / self.task.steps,
        }
        found = self.relaxation.genotype(self.supernet)
        row |= {"learning_rate": rate, "arch": "" if found is None else self.space.format(found)}
        for monitor in self.monitors:
            if self.epoch % monitor.every == 0:
                row |= monitor.measure(self)
        self.history.append(row)
        self._keep_snapshot()
        for hook in self.hooks:
            hook.after_epoch(self)
        return row

    def _end_stage(self) -> None:
        keep = self.stage.keep
        if keep is not None:
            expected = self.relaxation.expected(self.supernet)
            groups = self.supernet.operation_groups
            self._allowed = {g.name: _largest(expected[g.name], self.supernet.allowed(g.name), keep) for g in groups}
        self.stage_number += 1
        self.begin_stage()

    # ------------------------------------------------------------------------------------------------------ the result

    def genotype_of_result(self) -> Genotype:
        """The architecture of the epoch that counts: the last one, or that which a stopping rule goes back to.

        Raises:
            OptionError: if the relaxation tells no architecture.
        """
        arch = next(row["arch"] for row in reversed(self.history) if row["epoch"] == self.result_epoch)
        if not arch:
            raise OptionError(
                f"{type(self.relaxation).__name__} has no parameters that tell an architecture; take a selection that "
                "compares several by the weights of the supernet"
            )
        return self.space.parse(arch)

    @property
    def result_epoch(self) -> int:
        """The epoch, from 1, whose architecture counts."""
        return self.epoch if self._result_epoch is None else self._result_epoch

    @result_epoch.setter
    def result_epoch(self, epoch: int) -> None:
        self._result_epoch = epoch

    def go_to_result(self) -> None:
        """Go back to the state after the epoch that counts, if that is not the last one."""
        if self.result_epoch != self.epoch:
            self.rewind(self.result_epoch)

    def stop(self, reason: str, *, epoch: int | None = None) -> None:
        """End the search after this epoch.

        Args:
            reason: in a few words.
            epoch: the one whose architecture counts; None: the present one.
        """
        self.stopped, self._result_epoch = reason, epoch

    def rewind(self, epoch: int) -> None:
        """Go back to the state after an epoch, with its weights, alphas and random states; the history stays.

        Raises:
            OptionError: if that state was not kept; see :attr:`Hook.keeps`.
        """
        if epoch not in self.snapshots:
            raise OptionError(f"the state after epoch {epoch} was not kept, only those of {sorted(self.snapshots)}")
        state = copy.deepcopy(self.snapshots[epoch])  # optimizers take the very tensors that they are given
        self.snapshots = {number: kept for number, kept in self.snapshots.items() if number <= epoch}
        self._load(state)

    def _keep_snapshot(self) -> None:
        returns = max((hook.returns for hook in self.hooks), default=0) if self.plan.selection.needs_state else 0
        keeps = max((hook.keeps for hook in self.hooks), default=0)
        keeps = max(keeps, returns and returns + 1)
        if keeps:
            self.snapshots[self.epoch] = copy.deepcopy(self._state())
            self.snapshots = {n: kept for n, kept in self.snapshots.items() if n > self.epoch - keeps}

    # ----------------------------------------------------------------------------------------------------- its memory

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "valid_batches": self.valid_batches,
            "stage": self.stage_number,
            "allowed": self._allowed,
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "relaxation": self.relaxation.state_dict(),
            "resource": {} if self.resource is None else self.resource.state_dict(),
            "random": random_state(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        if state["stage"] != self.stage_number or not _alike(state["allowed"], self._allowed):
            self.stage_number, self._allowed = state["stage"], state["allowed"]
            self.epoch = state["epoch"]
            self.begin_stage()
        self.epoch, self.valid_batches = state["epoch"], state["valid_batches"]
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.relaxation.load_state_dict(state["relaxation"])
        if self.resource is not None:
            self.resource.load_state_dict(state["resource"])
        set_random_state(state["random"])

    def state(self) -> dict[str, Any]:
        """Everything that has to be kept to go on."""
        return {
            **self._state(),
            "history": self.history,
            "stopped": self.stopped,
            "result_epoch": self._result_epoch,
            "snapshots": self.snapshots,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._load(state)
        self.history, self.stopped = state["history"], state["stopped"]
        self._result_epoch, self.snapshots = state["result_epoch"], state["snapshots"]


def _alike(one: Mapping[str, Tensor] | None, other: Mapping[str, Tensor] | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(torch.equal(one[name].cpu(), other[name].cpu()) for name in one)


def _largest(weights: Tensor, allowed: Tensor, keep: int) -> Tensor:
    """(rows, options) bool: the ``keep`` options of each row of largest weight among the allowed."""
    ranked = weights.masked_fill(~allowed, -math.inf).argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(allowed).scatter_(1, ranked[:, :keep], value=True)
    return kept & allowed
