"""What a search has evaluated: in memory, in its store, and what is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import replace

from naswot.errors import WorkerError
from naswot.evaluate import Store
from naswot.evaluators import TrialEvaluator
from naswot.searcher import Trial
from naswot.types import Evaluation, Genotype


class Archive:
    """What has been evaluated: in this search, in the store; and what is under way."""

    def __init__(self, evaluator: TrialEvaluator, store: Store | None, executor: Executor | None) -> None:
        self._evaluator, self._store, self._executor = evaluator, store, executor
        self._known: dict[tuple[Genotype, int | None, int], Evaluation] = {}
        self._running: dict[tuple[Genotype, int | None, int], Future[Evaluation]] = {}
        self._seen: set[tuple[Genotype, int | None, int]] = set()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._running.values():
            future.cancel()

    def is_new(self, trial: Trial) -> bool:
        """Whether no trial before was the same; asking marks it as seen."""
        key = self._key(trial)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _key(self, trial: Trial) -> tuple[Genotype, int | None, int]:
        """Genotype, epochs, repeat: what inherits weights is evaluated anew in every trial."""
        return trial.genotype, trial.epochs or self._evaluator.epochs, trial.number if self._evaluator.inherits else 0

    def begin(self, trial: Trial) -> Callable[[], Evaluation]:
        """Start the evaluation of a trial unless it is known; the function returned waits for it."""
        key = self._key(trial)
        if key not in self._known and key not in self._running:
            stored = self._recall(trial)
            if stored is not None:
                self._known[key] = stored
            elif self._executor is not None:
                self._running[key] = self._executor.submit(self._evaluator.evaluate, trial)
        return lambda: self._result(trial)

    def _result(self, trial: Trial) -> Evaluation:
        key = self._key(trial)
        if key not in self._known:
            future = self._running.pop(key, None)
            try:
                found = self._evaluator.evaluate(trial) if future is None else future.result()
            except BrokenExecutor as error:
                raise WorkerError(
                    "a worker process died, perhaps for want of memory; what was finished is kept: run again, with "
                    f"fewer workers or a smaller batch if it repeats ({error})"
                ) from error
            if self._store is not None:
                self._store.append(stored_form(found, key[1], self._evaluator, repeat=key[2]))
                found = self._recall(trial) or found  # as a resumed search will see it
            self._known[key] = found
        return self._known[key]

    def _recall(self, trial: Trial) -> Evaluation | None:
        if self._store is None:
            return None
        _, epochs, repeat = self._key(trial)
        stored = self._store.get(self._evaluator.space.format(trial.genotype), self._evaluator.seed, repeat)
        return None if stored is None else recalled_form(stored, epochs, self._evaluator)


def stored_name(name: str, epochs: int | None, evaluator: TrialEvaluator) -> str:
    """Name under which a store keeps a score or stage: ``valid_accuracy_12_epochs`` where it depends on the epochs."""
    return f"{name}_{epochs}_epochs" if epochs is not None and name in evaluator.by_epochs else name


def stored_form(found: Evaluation, epochs: int | None, evaluator: TrialEvaluator, *, repeat: int = 0) -> Evaluation:
    """An evaluation as a store keeps it, where results of other lengths of training stand beside it.

    What failed is kept as the reason of every score that is missing, so that scores of the same architecture by others
    do not hide it.
    """

    def named(values: Mapping[str, float]) -> dict[str, float]:
        return {stored_name(name, epochs, evaluator): value for name, value in values.items()}

    reasons = dict(found.reasons)
    if found.error is not None:
        reasons |= {name: found.error for name in evaluator.names if name not in found.scores}
    told = {stored_name(name, epochs, evaluator): why for name, why in reasons.items()}
    return replace(
        found,
        scores={} if found.error is not None else named(found.scores),
        seconds=named(found.seconds),
        reasons=told,
        error=None,
        seed=evaluator.seed,
        repeat=repeat,
    )


def recalled_form(stored: Evaluation, epochs: int | None, evaluator: TrialEvaluator) -> Evaluation | None:
    """The evaluation of one length of training out of what a store has; None if a score is neither there nor failed."""
    names = {name: stored_name(name, epochs, evaluator) for name in evaluator.names}
    if any(name not in stored.scores and name not in stored.reasons for name in names.values()):
        return None
    scores = {name: stored.scores[kept] for name, kept in names.items() if kept in stored.scores}
    reasons = {name: stored.reasons[kept] for name, kept in names.items() if kept in stored.reasons}
    stages = {stage: stored_name(stage, epochs, evaluator) for stage in evaluator.stages}
    seconds = {stage: stored.seconds[kept] for stage, kept in stages.items() if kept in stored.seconds}
    return replace(stored, scores=scores, reasons=reasons, seconds=seconds, error=None)
