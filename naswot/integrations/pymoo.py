"""pymoo chooses the architectures, by several objectives.

    evaluator = Evaluator(get_space("nasbench201"), get_data("digits"))
    found = minimize(
        problem(evaluator, ["naswot", "-params"]),
        NSGA2(40, IntegerRandomSampling(), crossover=SBX(vtype=float, repair=RoundingRepair()),
              mutation=PM(vtype=float, repair=RoundingRepair())),
        ("n_gen", 10), seed=0,
    )

Genes have no order for most spaces, which pymoo's operators for numbers ignore; the strategy ``nsga2`` of ``naswot
search`` uses those of the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naswot.errors import missing_package
from naswot.evaluators import TrialEvaluator
from naswot.integrations import objectives_of, outcome_of
from naswot.objectives import Objective


def problem(evaluator: TrialEvaluator, objectives: Sequence[str], *, limits: Mapping[str, float] | None = None) -> Any:
    """A ``pymoo.core.problem.Problem`` of integer variables: the genes.

    pymoo minimises and knows no failures: ``F`` are the negated objectives, and what is invalid, failed, or has an
    infinite value violates the first constraint and has ``F`` = inf, so that it is never among the results (crowding
    distances would be NaN beside infinite values of feasible architectures).

    Args:
        evaluator: of the space that is searched.
        objectives: to be maximised, such as ``["naswot", "-params"]``.
        limits: the most that a score may be, by name (or text, as for objectives); a constraint each.
    Raises:
        OptionError: if an objective or limit needs a score that the evaluator does not give.
        MissingPackageError: without pymoo.
    """
    try:
        from pymoo.core.problem import Problem
    except ImportError as error:
        raise missing_package("pymoo", "pymoo", "a search by pymoo") from error
    wanted = objectives_of(evaluator, objectives)
    bounds = list(zip(objectives_of(evaluator, tuple(limits or {})), (limits or {}).values(), strict=True))

    class Genotypes(Problem):  # type: ignore[misc]
        def _evaluate(self, x: NDArray[Any], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
            rows = [_row(evaluator, wanted, bounds, tuple(map(int, genes))) for genes in x]
            out["F"], out["G"] = (np.array(part, dtype=np.float64) for part in zip(*rows, strict=True))

    top = np.array(evaluator.space.choices) - 1
    return Genotypes(n_var=len(top), n_obj=len(wanted), n_ieq_constr=1 + len(bounds), xl=0, xu=top, vtype=int)


def _row(
    evaluator: TrialEvaluator,
    wanted: Sequence[Objective],
    bounds: Sequence[tuple[Objective, float]],
    genotype: tuple[int, ...],
) -> tuple[list[float], list[float]]:
    """F and G of a genotype; a positive G is a violation."""
    outcome = outcome_of(evaluator, wanted, genotype)
    if outcome.values is None or outcome.evaluation is None or not outcome.is_finite:
        return [math.inf] * len(wanted), [1.0] * (1 + len(bounds))
    costs = [(cost.value(outcome.evaluation.scores), most) for cost, most in bounds]
    excess = [math.inf if cost is None else cost - most for cost, most in costs]
    return [-value for value in outcome.values], [0.0, *excess]
