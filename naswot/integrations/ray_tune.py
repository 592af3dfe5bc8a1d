"""Ray Tune chooses the architectures and runs their evaluations.

    evaluator = Evaluator(get_space("nasbench201"), get_data("digits"))
    tuner = tune.Tuner(
        trainable(evaluator, "naswot"),
        param_space=search_space(evaluator.space),
        tune_config=tune.TuneConfig(metric="naswot", mode="max", num_samples=100),
    )
    best = genotype_of(tuner.fit().get_best_result().config, evaluator.space)

Objectives are to be maximised. An architecture that is invalid or cannot be evaluated reports -inf with the reason; Ray
leaves infinite results out when it looks for the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from naswot.errors import missing_package
from naswot.evaluators import TrialEvaluator
from naswot.integrations import genotype_of, objectives_of, outcome_of
from naswot.space import SearchSpace

__all__ = ["genotype_of", "search_space", "trainable"]


def search_space(space: SearchSpace) -> dict[str, Any]:
    """Variables g0, g1, ... for ``param_space``; of a constrained space they give invalid genotypes too.

    Raises:
        MissingPackageError: without Ray Tune.
    """
    tune = _tune()
    return {f"g{i}": tune.choice(list(range(n))) for i, n in enumerate(space.choices)}


def trainable(
    evaluator: TrialEvaluator, objectives: str | Sequence[str] = "naswot"
) -> Callable[[dict[str, Any]], None]:
    """What ``tune.Tuner`` takes: evaluates an architecture and reports each objective under its text.

    The architecture, its scores and the reason of an infinite value are reported too.

    Args:
        evaluator: of the space that is searched; it travels to Ray's workers with its images.
        objectives: to be maximised.
    Raises:
        OptionError: if an objective needs a score that the evaluator does not give.
        MissingPackageError: without Ray Tune.
    """
    parsed = objectives_of(evaluator, objectives)
    _tune()

    def evaluate(config: dict[str, Any]) -> None:
        outcome = outcome_of(evaluator, parsed, genotype_of(config, evaluator.space))
        values = outcome.values or (-math.inf,) * len(parsed)
        found = outcome.evaluation
        about = {"arch": "" if found is None else found.arch, "reason": outcome.reason}
        scores = {} if found is None else {f"scores/{name}": value for name, value in found.scores.items()}
        named = {each.text: value for each, value in zip(parsed, values, strict=True)}
        _tune().report({**scores, **named, **about})

    return evaluate


def _tune() -> Any:
    try:
        from ray import tune
    except ImportError as error:
        raise missing_package("ray", "ray", "a search by Ray Tune") from error
    return tune
