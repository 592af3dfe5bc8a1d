"""Several searches by a supernet: from several seeds, and of methods that search several times and keep the best.

Published results are often those of the best of a few searches; here the mean and the spread over seeds stand apart
from the best, and whatever is chosen is chosen by validation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from naswot.data.images import ImageSet
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.searching import Row, run_search_of
from naswot.differentiable.session import Monitor
from naswot.differentiable.tasks import ImageTask, Task
from naswot.errors import OptionError
from naswot.evaluate import single_thread
from naswot.evaluators import TrialEvaluator, portable
from naswot.searcher import Trial
from naswot.seeding import derive_seed
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype
from naswot.workers import deaths_explained, message_queue


@dataclass(frozen=True)
class ImageTasks:
    """Makes the task of a search on images; arguments as those of :class:`~naswot.differentiable.tasks.ImageTask`."""

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
        )


class RunKey(NamedTuple):
    """Which search it is: its seed, and the number of the plan among those of the method."""

    seed: int
    variant: int


@dataclass(frozen=True)
class SupernetRun:
    """One finished search.

    Args:
        key: which it is.
        genotype: what it found.
        arch: its string.
        history: see :class:`~naswot.differentiable.searching.SupernetResult`.
        epoch: the one whose architecture counts.
        stopped: why it ended early.
        seconds: of the search.
        value: what the judge says of the architecture, higher is better; None without a judge.
        error: why the judge has no value.
    """

    key: RunKey
    genotype: Genotype
    arch: str
    history: tuple[Row, ...]
    epoch: int
    stopped: str | None
    seconds: float
    value: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class SupernetRuns:
    """Searches of one method from several seeds.

    Args:
        runs: all of them, by seed and variant.
    """

    runs: tuple[SupernetRun, ...]

    @property
    def by_seed(self) -> tuple[SupernetRun, ...]:
        """Of each seed the search that is kept: the only one, or the best by the judge."""
        seeds = dict.fromkeys(run.key.seed for run in self.runs)
        return tuple(max((run for run in self.runs if run.key.seed == seed), key=_value) for seed in seeds)

    @property
    def best(self) -> SupernetRun:
        """The best of all seeds by the judge; the first without one. It is no estimate of what a seed gives."""
        return max(self.by_seed, key=_value)

    @property
    def values(self) -> tuple[float, ...]:
        """What the judge says of the architecture of each seed; without those that it has no value of."""
        return tuple(run.value for run in self.by_seed if run.value is not None)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def ignore(key: RunKey, row: Row) -> None:
    """Take what an epoch of a search measured, and do nothing."""


@dataclass(frozen=True)
class _Job:
    key: RunKey
    space: str
    tasks: Callable[[SearchPlan, int], Task]
    plan: SearchPlan
    build: Mapping[str, Any]
    device: str
    monitors: tuple[Monitor, ...]
    folder: Path | None
    judge: TrialEvaluator | None


def run_searches(
    space: SearchSpace | str,
    tasks: Callable[[SearchPlan, int], Task],
    plans: Sequence[SearchPlan],
    *,
    seeds: Sequence[int] = (0,),
    build: Mapping[str, Any] | None = None,
    device: str = "cpu",
    monitors: Sequence[Monitor] = (),
    folder: Path | None = None,
    judge: TrialEvaluator | None = None,
    executor: Executor | None = None,
    on_epoch: Callable[[RunKey, Row], None] = ignore,
) -> SupernetRuns:
    """Search from every seed by every plan, and let a judge say what the architectures are worth.

    Each search runs on one thread of torch, so that any number of processes gives the same bits.

    Args:
        space: or its name; it must be registered, as processes look it up.
        tasks: makes the task of a plan and a seed, such as :class:`ImageTasks`.
        plans: of a method, see :func:`naswot.differentiable.preset.get_plans`; with several the judge keeps the best.
        seeds: different ones.
        build: options of the supernet.
        device: where supernets are trained.
        monitors: what is measured after the epochs.
        folder: where the checkpoints lie, from which stopped searches go on; None: nowhere.
        judge: values the architecture that was found by its first score: a
            :class:`~naswot.training.evaluator.TrainingEvaluator` that trains it from scratch, a
            :class:`~naswot.table_evaluator.TableEvaluator` that looks it up.
        executor: runs the searches side by side; None: one after the other.
        on_epoch: called in this process after each epoch of each search.
    Raises:
        OptionError: if there are several plans and no judge, or no seeds.
    """
    found = get_space(space) if isinstance(space, str) else space
    if not seeds or not plans or len(set(seeds)) != len(seeds):
        raise OptionError(f"expected plans and different seeds, but got {len(plans)} plans and the seeds {list(seeds)}")
    if len(plans) > 1 and judge is None:
        raise OptionError(
            f"the method searches {len(plans)} times and keeps the best by validation: give a judge, such as a "
            "TrainingEvaluator of a few epochs"
        )
    told = None if judge is None else portable(judge)
    jobs = [
        _Job(RunKey(seed, variant), found.name, tasks, plan, dict(build or {}), device, tuple(monitors), folder, told)
        for seed in seeds
        for variant, plan in enumerate(plans)
    ]
    runs = [_run(job, on_epoch) for job in jobs] if executor is None else _run_all(executor, jobs, on_epoch)
    return SupernetRuns(tuple(sorted(runs, key=lambda run: (list(seeds).index(run.key.seed), run.key.variant))))


def seed_of(key: RunKey) -> int:
    """Seed of a search: the first plan has the seed itself, so that it is the search that the plan alone would be."""
    return key.seed if key.variant == 0 else derive_seed(key.seed, "variant", key.variant) % 2**31


def _run(job: _Job, on_epoch: Callable[[RunKey, Row], None]) -> SupernetRun:
    seed = seed_of(job.key)
    path = None if job.folder is None else job.folder / f"seed{job.key.seed}-{job.key.variant}.pt"
    with single_thread():
        result = run_search_of(
            job.space,
            job.tasks(job.plan, seed),
            job.plan,
            seed=seed,
            build=job.build,
            device=job.device,
            monitors=job.monitors,
            checkpoint=path,
            on_epoch=lambda row: on_epoch(job.key, row),
        )
    value, error = None, None
    if job.judge is not None:
        judged = job.judge.evaluate(Trial(0, result.genotype))
        value = judged.scores.get(job.judge.names[0])
        error = judged.error or judged.reasons.get(job.judge.names[0])
    return SupernetRun(
        job.key,
        result.genotype,
        result.arch,
        result.history,
        result.epoch,
        result.stopped,
        result.seconds,
        value,
        error,
    )


def _run_and_tell(job: _Job, queue: Any) -> SupernetRun:
    """What another process runs."""
    return _run(job, lambda key, row: queue.put((key, dict(row))))


def _run_all(executor: Executor, jobs: Sequence[_Job], on_epoch: Callable[[RunKey, Row], None]) -> list[SupernetRun]:
    """All jobs in other processes, whose epochs are handed on in this thread as they are told."""
    with message_queue() as queue, deaths_explained():
        futures = [executor.submit(_run_and_tell, job, queue) for job in jobs]
        for future in futures:
            future.add_done_callback(lambda _: queue.put(None))
        try:
            for _ in futures:
                while (told := queue.get()) is not None:
                    on_epoch(*told)
                for future in futures:  # the first failure ends all, as early as it is known
                    if future.done():
                        future.result()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _value(run: SupernetRun) -> float:
    return float("-inf") if run.value is None else run.value
