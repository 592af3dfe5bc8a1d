"""Spaces and evaluators of this package in the loops of other tools: Optuna, Ray Tune, pymoo, or one's own.

A genotype is a tuple of integers, and an evaluator is called with one; so a loop of one's own needs nothing from here:

    >>> from naswot.data import get_data
    >>> from naswot.evaluate import Evaluator
    >>> from naswot.seeding import numpy_generator
    >>> from naswot.space import get_space
    >>> space, rng = get_space("nasbench201"), numpy_generator(0)
    >>> evaluator = Evaluator(space, get_data("digits"), ("naswot",), 8, build={"width": 4, "n_cells": 1})
    >>> best = first = evaluator(space.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"))
    >>> for _ in range(10):
    ...     child = evaluator(space.mutate(best.genotype, rng))
    ...     if child.error is None and child.scores["naswot"] > best.scores["naswot"]:
    ...         best = child
    >>> best.scores["naswot"] > first.scores["naswot"]
    True

The tools' variables are called g0, g1, ...; objectives are those of ``naswot search``, to be maximised. The other way
round, :class:`naswot.evaluators.CallableEvaluator` takes a function of one's own into the searches of this package.

The tools draw every gene by itself. Where few genotypes are valid (of ``nasbench101`` one in 500) begin with some from
``space.sample`` (Optuna's ``enqueue_trial``, Ray's ``points_to_evaluate``, pymoo's ``sampling``), or use ``naswot
search``, whose strategies draw and change architectures by the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from naswot.errors import InputError
from naswot.evaluators import TrialEvaluator
from naswot.objectives import Objective, check_names, values_of
from naswot.searcher import Trial
from naswot.space import SearchSpace
from naswot.types import Evaluation, Genotype


class Outcome(NamedTuple):
    """What became of a proposed genotype: values to be maximised or None, the reason, the evaluation or None."""

    values: tuple[float, ...] | None
    reason: str = ""
    evaluation: Evaluation | None = None

    @property
    def is_finite(self) -> bool:
        """Whether all values are there and finite."""
        return self.values is not None and all(map(math.isfinite, self.values))


def genotype_of(values: Mapping[str, Any], space: SearchSpace) -> Genotype:
    """The genotype of a tool's variables, such as ``study.best_params``, valid or not; InputError if one is missing."""
    names = [f"g{i}" for i in range(len(space.choices))]
    missing = [name for name in names if name not in values]
    if missing:
        raise InputError(f"a genotype of {space.name} has the variables g0 to {names[-1]}, but {missing[0]} is missing")
    return tuple(int(values[name]) for name in names)


def objectives_of(evaluator: TrialEvaluator, texts: str | Sequence[str]) -> tuple[Objective, ...]:
    """Objectives by their texts, of scores that the evaluator gives."""
    parsed = tuple(Objective.parse(text) for text in ((texts,) if isinstance(texts, str) else texts))
    check_names(parsed, evaluator.names)
    return parsed


def outcome_of(evaluator: TrialEvaluator, objectives: Sequence[Objective], genotype: Genotype) -> Outcome:
    """Evaluate what a tool proposed; an invalid genotype has no evaluation."""
    space = evaluator.space
    if not space.is_valid(genotype):
        return Outcome(None, f"{genotype} is no valid genotype of {space.name}")
    evaluation = evaluator.evaluate(Trial(0, space.check(genotype)))
    values = None if evaluation.error is not None else values_of(objectives, evaluation.scores)
    reasons = "; ".join(f"{name}: {why}" for name, why in evaluation.reasons.items())
    reason = evaluation.error or reasons or ("" if values is not None else "infinite scores cancel")
    return Outcome(values, reason, evaluation)
