"""The search: ask a strategy, evaluate, tell; within a budget, with every result in a store."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from naswot._archive import Archive
from naswot.errors import OptionError
from naswot.evaluate import Store
from naswot.evaluators import CallableEvaluator, TrialEvaluator
from naswot.objectives import Objective, check_names, dominates, values_of
from naswot.searcher import Searcher, Trial, Values
from naswot.types import Evaluation, Genotype

_IDLE_LIMIT = 10_000  # trials in a row that repeat others or cost nothing, after which a budget of time alone ends


@dataclass(frozen=True)
class Budget:
    """When a search ends: whichever limit is met first.

    A trial is charged what its evaluation took when it was really done, also where it comes from a store or was
    evaluated before in the same search. So a resumed search ends where the uninterrupted one does.

    Args:
        evaluations: number of trials.
        seconds: of all trials and of the scores that the strategy asks for; a trial that begins within them counts.
            With ``strict`` the first trial that does not fit ends the search and does not count.
        epochs: of training.
        strict: see ``seconds``.
    Raises:
        OptionError: if there is no limit, or one is not positive.
    """

    evaluations: int | None = None
    seconds: float | None = None
    epochs: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.evaluations, self.seconds, self.epochs) if limit is not None]
        if not limits or min(limits) <= 0:
            raise OptionError(
                f"expected a positive budget of evaluations, seconds or epochs, but got evaluations "
                f"{self.evaluations}, seconds {self.seconds}, epochs {self.epochs}"
            )

    def is_spent(self, trials: int, seconds: float, epochs: int) -> bool:
        """Whether no further trial may begin."""
        used = ((self.evaluations, trials), (self.seconds, seconds), (self.epochs, epochs))
        return any(limit is not None and spent >= limit for limit, spent in used)

    @property
    def counts_epochs_only(self) -> bool:
        """Whether epochs are the only limit."""
        return self.evaluations is None and self.seconds is None

    def is_overdrawn(self, seconds: float) -> bool:
        """Whether a trial that ends at ``seconds`` does not count any more."""
        return self.strict and self.seconds is not None and seconds > self.seconds


@dataclass(frozen=True)
class Record:
    """One trial of a search with its result.

    Args:
        trial: what was asked.
        evaluation: scores, seconds and reasons.
        values: of each objective, higher is better; None: it failed.
        epochs: how long it was trained; 0 if nothing was trained.
        spent: seconds of the search up to and with this trial, scoring included.
        n_scored: architectures that the strategy had scored untrained when it asked.
    """

    trial: Trial
    evaluation: Evaluation
    values: Values | None
    epochs: int
    spent: float
    n_scored: int

    @property
    def error(self) -> str | None:
        """Why the trial failed, in words; None if it did not."""
        if self.values is not None:
            return None
        reasons = "; ".join(dict.fromkeys(self.evaluation.reasons.values()))
        return self.evaluation.error or reasons or "a score of the objective is missing"


@dataclass(frozen=True)
class SearchResult:
    """What a search did.

    Args:
        records: every trial in the order of asking.
        objectives: what was maximised.
        stopped: why it ended: ``"budget"``, ``"exhausted"`` (nothing left to propose) or ``"no progress"``.
        seconds: of all trials and of the scores that the strategy asked for.
        n_scored: architectures that the strategy scored untrained.
    """

    records: Sequence[Record]
    objectives: tuple[Objective, ...]
    stopped: str = "budget"
    seconds: float = 0.0
    n_scored: int = 0

    @property
    def best(self) -> Record | None:
        """The best trial by the first objective, then the next, among those trained longest; None if all failed.

        Of equal ones it is the earliest.
        """
        return self.incumbents[-1] if self.records else None

    @cached_property
    def incumbents(self) -> list[Record | None]:
        """What would be the best if the search ended after each trial; None before the first success."""
        chosen: Record | None = None
        found = []
        for record in self.records:
            if record.values is not None and (chosen is None or _rank(record) > _rank(chosen)):
                chosen = record
            found.append(chosen)
        return found

    @cached_property
    def front(self) -> list[Record]:
        """Of the trials trained longest those that no other one dominates, by falling first objective.

        An architecture occurs once.
        """
        good = [r for r in self.records if r.values is not None]
        longest = max((r.epochs for r in good), default=0)
        each = {r.trial.genotype: r for r in reversed(good) if r.epochs == longest}.values()
        kept = [r for r in each if not any(dominates(o.values or (), r.values or ()) for o in each)]
        return sorted(kept, key=lambda r: tuple(-v for v in r.values or ()))

    def best_so_far(self) -> list[float]:
        """First objective of the incumbent after each trial; -inf before the first success."""
        return [-math.inf if r is None or r.values is None else r.values[0] for r in self.incumbents]


def _rank(record: Record) -> tuple[int, tuple[float, ...]]:
    """Long trainings before short ones, then by value."""
    return record.epochs, record.values or ()


def run_search(
    searcher: Searcher,
    evaluator: TrialEvaluator | Callable[[Genotype], float],
    *,
    budget: Budget | int | None = None,
    objectives: str | Sequence[str | Objective] = (),
    store: Store | None = None,
    executor: Executor | None = None,
    parallel: int = 1,
    on_record: Callable[[Record], None] = lambda record: None,
) -> SearchResult:
    """Search until the budget is spent or the strategy has nothing left.

    The result depends on the seed and on ``parallel`` (the number of trials that may be open at once), not on which
    evaluation ends first. What the store holds is not evaluated again: a search that was stopped goes on by the same
    call, and ends as if it had never been stopped. Failures that the store holds are failures again.

    Args:
        searcher: a new one.
        evaluator: works the trials out; a bare function is called with the genotype, see
            :class:`naswot.evaluators.CallableEvaluator` for more.
        budget: when to end; a number counts evaluations; None: when the strategy has nothing left.
        objectives: what is maximised, such as ``"valid_accuracy - 1e-8 * flops"``; by default the evaluator's first
            score. As many as the searcher was made for.
        store: results come from it and go to it at once.
        executor: runs the evaluations, such as that of :func:`naswot.workers.worker_pool`; None: this process.
        parallel: trials that may be open at once; at least the number of workers keeps all busy.
        on_record: called with every finished trial, in the order of asking.
    Raises:
        OptionError: if the objectives do not fit the evaluator or the searcher, or ``parallel`` is below 1.
        WorkerError: if a worker process died.
    """
    if not hasattr(evaluator, "evaluate"):
        evaluator = CallableEvaluator(searcher.space, evaluator)
    evaluator = cast(TrialEvaluator, evaluator)
    budget = Budget(evaluations=budget) if isinstance(budget, int) else budget
    objectives = (objectives,) if isinstance(objectives, str) else objectives
    chosen = tuple(Objective.parse(o) if isinstance(o, str) else o for o in objectives or evaluator.names[:1])
    check_names(chosen, evaluator.names)
    if len(chosen) != searcher.n_objectives:
        raise OptionError(f"{searcher.name} was made for {searcher.n_objectives} objectives, but got {len(chosen)}")
    if budget is not None and not evaluator.by_epochs and budget.counts_epochs_only:
        raise OptionError("nothing is trained here, so a budget of epochs never ends; give evaluations or seconds")
    if budget is None and not searcher.ends:
        raise OptionError(f"{searcher.name} never ends by itself; pass budget=, such as Budget(evaluations=100)")
    if parallel < 1:
        raise OptionError(f"expected parallel of at least 1, but got {parallel}")
    return _Loop(searcher, evaluator, budget, chosen, Archive(evaluator, store, executor), on_record).run(parallel)


@dataclass
class _Loop:
    searcher: Searcher
    evaluator: TrialEvaluator
    budget: Budget | None
    objectives: tuple[Objective, ...]
    archive: Archive
    on_record: Callable[[Record], None]
    records: list[Record] = field(default_factory=list)
    seconds: float = 0.0  # of the trials
    epochs: int = 0
    idle: int = 0
    stopped: str = ""

    def run(self, parallel: int) -> SearchResult:
        waiting: deque[tuple[Trial, int, Callable[[], Evaluation]]] = deque()
        with self.archive:
            while True:
                while len(waiting) < parallel and not self.stopped:
                    trial = self._ask([trial for trial, _, _ in waiting])
                    if trial is None:
                        break
                    waiting.append((trial, self.searcher.n_scored, self.archive.begin(trial)))
                if not waiting:
                    break
                trial, n_scored, result = waiting.popleft()
                if not self._finish(trial, n_scored, result()):
                    break
        spent = self.seconds + self.searcher.scoring_seconds
        return SearchResult(self.records, self.objectives, self.stopped, spent, self.searcher.n_scored)

    def _ask(self, waiting: Sequence[Trial]) -> Trial | None:
        spent, n_open = self.seconds + self.searcher.scoring_seconds, len(waiting)
        epochs = self.epochs + sum(map(self._epochs_of, waiting))
        if self.budget is not None and self.budget.is_spent(len(self.records) + n_open, spent, epochs):
            self.stopped = "budget"
            return None
        if self.idle >= _IDLE_LIMIT and self.budget is not None and self.budget.evaluations is None:
            self.stopped = "no progress"
            return None
        trial = self.searcher.ask()
        if trial is None and n_open == 0:
            self.stopped = "exhausted"
        return trial

    def _epochs_of(self, trial: Trial) -> int:
        return (trial.epochs or self.evaluator.epochs or 0) if self.evaluator.by_epochs else 0

    def _finish(self, trial: Trial, n_scored: int, evaluation: Evaluation) -> bool:
        """Take a result in; False if it does not fit a strict budget any more."""
        seconds = sum(evaluation.seconds.values())
        spent = self.seconds + seconds + self.searcher.scoring_seconds
        if self.budget is not None and self.budget.is_overdrawn(spent):
            self.stopped = "budget"
            return False
        epochs = self._epochs_of(trial)
        self.seconds += seconds
        self.epochs += epochs
        self.idle = 0 if self.archive.is_new(trial) and seconds + epochs > 0 else self.idle + 1
        values = None if evaluation.error is not None else values_of(self.objectives, evaluation.scores)
        self.searcher.tell(trial, values)
        record = Record(trial, evaluation, values, epochs, spent, n_scored)
        self.records.append(record)
        self.on_record(record)
        return True
