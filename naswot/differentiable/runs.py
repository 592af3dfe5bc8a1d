"""Several searches by a supernet: from several seeds, and of methods that search several times and keep the best.

Published results are often those of the best of a few searches; here the mean and the spread over seeds stand apart
from the best, and whatever is chosen is chosen by validation.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.searching import Row, SupernetResult, run_search_of
from naswot.differentiable.session import Monitor
from naswot.differentiable.tasks import Task
from naswot.errors import OptionError, TrainingError
from naswot.evaluate import single_thread
from naswot.evaluators import TrialEvaluator, portable
from naswot.searcher import Trial
from naswot.seeding import derive_seed
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype
from naswot.workers import deaths_explained, message_queue


class RunKey(NamedTuple):
    """Which search it is: its seed, and the number of the plan among those of the method."""

    seed: int
    variant: int


@dataclass(frozen=True)
class SupernetRun:
    """One finished search.

    Args:
        key: which it is.
        genotype: what it found; None if the search failed.
        arch: its string.
        history: see :class:`~naswot.differentiable.searching.SupernetResult`.
        epoch: the one whose architecture counts.
        stopped: why it ended early.
        seconds: of the search.
        value: what the judge says of the architecture, higher is better; None without a judge.
        error: why the search failed, or the judge has no value.
        failure: what a failed search raised.
    """

    key: RunKey
    genotype: Genotype | None
    arch: str
    history: tuple[Row, ...]
    epoch: int
    stopped: str | None
    seconds: float
    value: float | None = None
    error: str | None = None
    failure: TrainingError | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SupernetRuns:
    """Searches of one method from several seeds.

    Args:
        runs: all of them, by seed and variant.
    """

    runs: tuple[SupernetRun, ...]

    @property
    def by_seed(self) -> tuple[SupernetRun, ...]:
        """Of each seed the search that is kept: the only one, or the best by the judge; not seeds that all failed."""
        good = [run for run in self.runs if run.genotype is not None]
        seeds = dict.fromkeys(run.key.seed for run in good)
        return tuple(max((run for run in good if run.key.seed == seed), key=_value) for seed in seeds)

    @property
    def failed(self) -> tuple[SupernetRun, ...]:
        """Searches that found nothing; ``error`` tells why."""
        return tuple(run for run in self.runs if run.genotype is None)

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


After = Callable[[RunKey, SupernetResult, Task], None]
"""What is done with a finished search where it ran, its supernet at hand; picklable for other processes."""


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
    after: After | None


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
    after: After | None = None,
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
        after: called where a search ran, when it is over.
        executor: runs the searches side by side; None: one after the other.
        on_epoch: called in this process after each epoch of each search.
    Raises:
        OptionError: if there are several plans and no judge, or no seeds.
        NaswotError: what the searches raised, if none of them found anything.
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
        _Job(
            RunKey(seed, variant),
            found.name,
            tasks,
            plan,
            dict(build or {}),
            device,
            tuple(monitors),
            folder,
            told,
            after,
        )
        for seed in seeds
        for variant, plan in enumerate(plans)
    ]
    runs = [_run(job, on_epoch) for job in jobs] if executor is None else _run_all(executor, jobs, on_epoch)
    if all(run.failure is not None for run in runs) and runs[0].failure is not None:
        raise runs[0].failure
    return SupernetRuns(tuple(sorted(runs, key=lambda run: (list(seeds).index(run.key.seed), run.key.variant))))


def seed_of(key: RunKey) -> int:
    """Seed of a search: the first plan has the seed itself, so that it is the search that the plan alone would be."""
    return key.seed if key.variant == 0 else derive_seed(key.seed, "variant", key.variant) % 2**31


def _run(job: _Job, on_epoch: Callable[[RunKey, Row], None]) -> SupernetRun:
    """Search and judge; a search that diverges is a result too, so that the others are not lost with it."""
    history: list[Row] = []

    def told(row: Row) -> None:
        history.append(row)
        on_epoch(job.key, row)

    try:
        with single_thread():
            result = _search(job, told)
    except TrainingError as error:
        return SupernetRun(job.key, None, "", tuple(history), len(history), None, 0.0, None, str(error), error)
    value, reason = _judged(job, result)
    return SupernetRun(
        job.key,
        result.genotype,
        result.arch,
        result.history,
        result.epoch,
        result.stopped,
        result.seconds,
        value,
        reason,
    )


def _search(job: _Job, on_epoch: Callable[[Row], None]) -> SupernetResult:
    seed = seed_of(job.key)
    task = job.tasks(job.plan, seed)
    result = run_search_of(
        job.space,
        task,
        job.plan,
        seed=seed,
        build=job.build,
        device=job.device,
        monitors=job.monitors,
        checkpoint=None if job.folder is None else job.folder / f"{_name(job.key)}.pt",
        on_epoch=on_epoch,
    )
    if job.after is not None:
        job.after(job.key, result, task)
    return result


def _judged(job: _Job, result: SupernetResult) -> tuple[float | None, str | None]:
    """What the judge says, which is kept beside the checkpoint."""
    if job.judge is None:
        return None, None
    about = json.loads(json.dumps({"judge": job.judge.describe(), "arch": result.arch}))
    path = None if job.folder is None else job.folder / f"{_name(job.key)}-judged.json"
    if path is not None and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["about"] == about:
            return kept["value"], kept["error"]
    judged = job.judge.evaluate(Trial(0, result.genotype))
    value = judged.scores.get(job.judge.names[0])
    error = judged.error or judged.reasons.get(job.judge.names[0])
    if path is not None:
        path.write_text(json.dumps({"about": about, "value": value, "error": error}), encoding="utf-8")
    return value, error


def _name(key: RunKey) -> str:
    return f"seed{key.seed}-{key.variant}"


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
