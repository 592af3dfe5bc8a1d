"""What a search has evaluated: in memory, in its store, and what is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from functools import cached_property

from naswot.evaluate import Store
from naswot.evaluators import TrialEvaluator, portable
from naswot.searcher import Trial
from naswot.types import Evaluation, Genotype
from naswot.workers import deaths_explained

Key = tuple[Genotype, int | None, int]
"""Genotype, epochs, repeat of an evaluation."""


class Archive:
    """Evaluations of one search.

    Args:
        evaluator: works trials out.
        store: results come from it and go to it as soon as they are there, in whatever order.
        executor: runs the evaluations; None: this process, when a result is asked for.
    """

    def __init__(self, evaluator: TrialEvaluator, store: Store | None, executor: Executor | None) -> None:
        self._evaluator, self._store, self._executor = evaluator, store, executor
        self._known: dict[Key, Evaluation] = {}
        self._running: dict[Key, Future[Evaluation]] = {}
        self._seen: set[Key] = set()

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

    def begin(self, trial: Trial) -> Callable[[], Evaluation]:
        """Start the evaluation of a trial unless it is known; the function returned waits for it."""
        key = self._key(trial)
        if key not in self._known and key not in self._running:
            stored = self._recall(key)
            if stored is not None:
                self._known[key] = stored
            elif self._executor is not None:
                with deaths_explained():
                    self._running[key] = self._executor.submit(self._travelling.evaluate, trial)
        return lambda: self._result(trial)

    @cached_property
    def _travelling(self) -> TrialEvaluator:
        return portable(self._evaluator)

    def _key(self, trial: Trial) -> Key:
        """What inherits weights is evaluated anew in every trial."""
        return trial.genotype, trial.epochs or self._evaluator.epochs, trial.number if self._evaluator.inherits else 0

    def _result(self, trial: Trial) -> Evaluation:
        key = self._key(trial)
        with deaths_explained():
            while key in self._running:
                done, _ = wait(self._running.values(), return_when=FIRST_COMPLETED)
                for finished in [key for key, future in self._running.items() if future in done]:
                    self._keep(finished, self._running.pop(finished).result())
        if key not in self._known:
            self._keep(key, self._evaluator.evaluate(trial))
        return self._known[key]

    def _keep(self, key: Key, found: Evaluation) -> None:
        if self._store is not None:
            self._store.append(stored_form(found, key[1], self._evaluator, repeat=key[2]))
            found = self._recall(key) or found  # as a resumed search will see it
        self._known[key] = found

    def _recall(self, key: Key) -> Evaluation | None:
        if self._store is None:
            return None
        genotype, epochs, repeat = key
        stored = self._store.get(self._evaluator.space.format(genotype), self._evaluator.seed, repeat)
        return None if stored is None else recalled_form(stored, epochs, self._evaluator)


def stored_name(name: str, epochs: int | None, evaluator: TrialEvaluator) -> str:
    """Name under which a store keeps a score: ``valid_accuracy_12_epochs`` where it depends on the epochs."""
    return f"{name}_{epochs}_epochs" if epochs is not None and name in evaluator.by_epochs else name


def stored_stage(stage: str, epochs: int | None) -> str:
    """Name under which a store keeps the seconds of a trial's stage, apart from those of scores and other lengths."""
    return f"trial_{stage}" if epochs is None else f"trial_{stage}_{epochs}_epochs"


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
        seconds={stored_stage(stage, epochs): value for stage, value in found.seconds.items()},
        reasons=told,
        error=None,
        seed=evaluator.seed,
        repeat=repeat,
    )


def recalled_form(stored: Evaluation, epochs: int | None, evaluator: TrialEvaluator) -> Evaluation | None:
    """The evaluation of one length of training out of what a store has; None if it holds no such trial, or not all."""
    names = {name: stored_name(name, epochs, evaluator) for name in evaluator.names}
    stages = {stage: stored_stage(stage, epochs) for stage in evaluator.stages}
    seconds = {stage: stored.seconds[kept] for stage, kept in stages.items() if kept in stored.seconds}
    known = all(name in stored.scores or name in stored.reasons for name in names.values())
    if not known or (stages and not seconds):
        return None
    scores = {name: stored.scores[kept] for name, kept in names.items() if kept in stored.scores}
    reasons = {name: stored.reasons[kept] for name, kept in names.items() if kept in stored.reasons}
    return replace(stored, scores=scores, reasons=reasons, seconds=seconds, error=None)
