"""The search by a supernet from outside: run it, keep it, go on with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naswot.data.images import ImageSet
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.session import Monitor, SearchSession
from naswot.differentiable.tasks import ImageTask, Task
from naswot.space import SearchSpace, get_space
from naswot.supernet import MixedSupernet
from naswot.training._session import memory_shortage_named
from naswot.training.checkpoint import read_checkpoint, write_checkpoint
from naswot.types import Genotype

Row = Mapping[str, Any]
"""What was measured after an epoch; ``arch`` is the architecture that the alphas told."""


def ignore(row: Row) -> None:
    """Take what an epoch measured, and do nothing."""


@dataclass(frozen=True)
class SupernetResult:
    """What a search by a supernet found.

    Args:
        space: that was searched.
        genotype: the architecture.
        history: one mapping for each epoch that was run, in order: ``row`` and ``epoch`` (both from 1), ``stage``,
            ``train_loss`` (nats), ``learning_rate``, ``arch``, and what the monitors measured. A search that went back
            in time has epochs twice.
        epoch: the one whose architecture counts.
        stopped: why it ended early; None: it did not.
        seconds: by the clock, of all sessions.
        supernet: with its weights and alphas, on its device.
    """

    space: SearchSpace
    genotype: Genotype
    history: tuple[Row, ...]
    epoch: int
    stopped: str | None
    seconds: float
    supernet: MixedSupernet

    @property
    def arch(self) -> str:
        """String of the architecture."""
        return self.space.format(self.genotype)


@dataclass(frozen=True)
class ImageTasks:
    """Makes the task of a search on images; arguments as those of :func:`run_supernet_search`."""

    train: ImageSet
    valid: ImageSet
    device: str = "cpu"
    crop_padding: int = 0
    flip: bool = False

    def __call__(self, plan: SearchPlan, seed: int) -> Task:
        """The task of one search."""
        return ImageTask(
            self.train,
            self.valid,
            batch_size=plan.batch_size,
            seed=seed,
            device=self.device,
            crop_padding=self.crop_padding,
            flip=self.flip,
            label_smoothing=plan.label_smoothing,
            learns_architecture=plan.relaxation.tells,
        )


def run_supernet_search(
    space: SearchSpace | str,
    train: ImageSet,
    valid: ImageSet,
    plan: SearchPlan,
    *,
    seed: int = 0,
    build: Mapping[str, Any] | None = None,
    device: str = "cpu",
    crop_padding: int = 0,
    flip: bool = False,
    monitors: Sequence[Monitor] = (),
    checkpoint: Path | str | None = None,
    on_epoch: Callable[[Row], None] = ignore,
) -> SupernetResult:
    """Search a space by a supernet on labelled images.

    Args:
        space: or its name; see :func:`naswot.supernet.list_supernets`.
        train: images that the weights learn from.
        valid: images that the architecture learns from; never test images.
        plan: how; :func:`naswot.differentiable.preset.get_plan` gives that of a published method.
        seed: of everything random.
        build: options of the supernet, such as ``width`` and ``n_cells``.
        device: ``"cpu"``, ``"cuda"``, ...
        crop_padding: zeros around a training image, from which a window is cut at random.
        flip: mirror half of the training images.
        monitors: what is measured after the epochs.
        checkpoint: file that is written after each epoch; if it exists, the search goes on from it.
        on_epoch: called after each epoch, when it is safe in the checkpoint.
    Raises:
        OptionError: for test images, a part smaller than a batch, options that do not fit.
        DivergedError: if a loss or an architecture parameter is not finite.
        MemoryShortageError: if a batch does not fit into memory.
        StoreError: if the checkpoint is another search's, or damaged.
    """
    task = ImageTasks(train, valid, device, crop_padding, flip)(plan, seed)
    return run_search_of(
        space,
        task,
        plan,
        seed=seed,
        build=build,
        device=device,
        monitors=monitors,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )


def run_search_of(
    space: SearchSpace | str,
    task: Task,
    plan: SearchPlan,
    *,
    seed: int = 0,
    build: Mapping[str, Any] | None = None,
    device: str = "cpu",
    monitors: Sequence[Monitor] = (),
    checkpoint: Path | str | None = None,
    on_epoch: Callable[[Row], None] = ignore,
) -> SupernetResult:
    """Search a space by a supernet on any task; arguments as those of :func:`run_supernet_search`."""
    found = get_space(space) if isinstance(space, str) else space
    path = None if checkpoint is None else Path(checkpoint)
    identity = {
        "space": found.name,
        "seed": seed,
        "plan": plan.describe(),
        "build": dict(build or {}),
        "task": task.describe(),
        "monitors": [repr(monitor) for monitor in monitors],
    }
    state = None if path is None else read_checkpoint(path, identity)
    start = time.perf_counter() - (0.0 if state is None else state["seconds"])
    session = SearchSession(found, task, plan, seed=seed, build=build, device=device, monitors=monitors)

    def keep(seconds: float, **more: Any) -> None:
        if path is not None:
            write_checkpoint(path, identity, {**session.state(), "seconds": seconds, **more})

    with memory_shortage_named(plan.batch_size), session:
        if state is not None:
            session.load(state)
        while not session.ended:
            row = session.next_epoch()
            keep(time.perf_counter() - start)
            on_epoch(row)
        if state is not None and "genotype" in state:
            genotype, seconds = tuple(state["genotype"]), state["seconds"]
        else:
            genotype, seconds = plan.selection.select(session), time.perf_counter() - start
            keep(seconds, genotype=list(genotype))
    history, supernet = tuple(session.history), session.supernet
    return SupernetResult(found, genotype, history, session.result_epoch, session.stopped, seconds, supernet)
