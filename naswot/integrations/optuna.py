"""Optuna chooses the architectures.

    evaluator = Evaluator(get_space("nasbench201"), get_data("digits"))
    study = optuna.create_study(directions=["maximize", "maximize"])
    study.optimize(objective(evaluator, ["naswot", "-params"]), n_trials=100)

Objectives are to be maximised. An architecture that is invalid or cannot be evaluated is a pruned trial with the reason
among its user attributes; -inf is a value like others, which Optuna takes and its samplers rank last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from naswot.errors import missing_package
from naswot.evaluators import TrialEvaluator
from naswot.integrations import objectives_of, outcome_of
from naswot.space import SearchSpace
from naswot.types import Genotype

if TYPE_CHECKING:
    from optuna import Trial


def suggest_genotype(trial: Trial, space: SearchSpace) -> Genotype:
    """A genotype by categorical variables g0, g1, ..., as options have no order.

    Raises:
        optuna.TrialPruned: if the space is constrained and does not contain what was suggested.
        MissingPackageError: without optuna.
    """
    genotype = tuple(int(trial.suggest_categorical(f"g{i}", range(n))) for i, n in enumerate(space.choices))
    if not space.is_valid(genotype):
        _prune(trial, f"{genotype} is no valid genotype of {space.name}")
    return genotype


def objective(
    evaluator: TrialEvaluator, objectives: str | Sequence[str] = "naswot"
) -> Callable[[Trial], float | tuple[float, ...]]:
    """What ``study.optimize`` takes: evaluates the architecture of a trial.

    All scores, the architecture and the reasons of infinite values become user attributes of the trial.

    Args:
        evaluator: of the space that is searched.
        objectives: one for each direction of the study, which is ``"maximize"``.
    Raises:
        OptionError: if an objective needs a score that the evaluator does not give.
        MissingPackageError: without optuna.
    """
    parsed = objectives_of(evaluator, objectives)
    _pruned()

    def evaluate(trial: Trial) -> float | tuple[float, ...]:
        outcome = outcome_of(evaluator, parsed, suggest_genotype(trial, evaluator.space))
        if outcome.evaluation is not None:
            trial.set_user_attr("arch", outcome.evaluation.arch)
            trial.set_user_attr("scores", dict(outcome.evaluation.scores))
        if outcome.values is None:
            _prune(trial, outcome.reason)
        if outcome.reason:
            trial.set_user_attr("reason", outcome.reason)
        return outcome.values[0] if len(outcome.values) == 1 else outcome.values

    return evaluate


def _prune(trial: Trial, reason: str) -> NoReturn:
    trial.set_user_attr("reason", reason)
    raise _pruned()(reason)


def _pruned() -> type[Exception]:
    try:
        from optuna import TrialPruned
    except ImportError as error:
        raise missing_package("optuna", "optuna", "a search by Optuna") from error
    return TrialPruned
