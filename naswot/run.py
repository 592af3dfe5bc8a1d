"""Screen a space: score a sample of its architectures and put them in order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from naswot.errors import OptionError
from naswot.evaluate import Evaluator, Store
from naswot.proxy import get_proxy
from naswot.seeding import derive_seed, numpy_generator
from naswot.space import SearchSpace
from naswot.types import Evaluation, Genotype


@dataclass(frozen=True)
class Ranked:
    """One architecture of a screened sample.

    Args:
        genotype: the architecture.
        arch: its canonical string.
        mean: mean over the repeats by score; infinite if any repeat is.
        spread: standard deviation over the repeats (n - 1) by score; None for one repeat or an infinite score.
        seconds: mean seconds of one repeat, building included.
        reasons: why a score is not finite, by name.
        error: why there is no score.
    """

    genotype: Genotype
    arch: str
    mean: Mapping[str, float]
    spread: Mapping[str, float | None]
    seconds: float
    reasons: Mapping[str, str]
    error: str | None


def sample_distinct(space: SearchSpace, n: int, *, seed: int = 0, at_most: bool = False) -> list[Genotype]:
    """``n`` distinct architectures drawn uniformly; the first of them do not depend on ``n``.

    Args:
        space: the space.
        n: how many.
        seed: of the draws.
        at_most: give fewer, where the space has no more, in the place of an error.
    Raises:
        OptionError: if the space has fewer, or the others are too rare to be met.
    """
    if at_most:
        n = min(n, space.size)
    if not 1 <= n <= space.size:
        raise OptionError(f"expected 1 to {space.size:,} architectures of {space.name}, but got {n}")
    rng = numpy_generator(derive_seed(seed, "sample", space.name))
    chosen: dict[Genotype, None] = {}
    in_vain = 0  # draws since the last new one; where one is left of M, so many miss it once in 10^9 times
    while len(chosen) < n and in_vain < 20 * (len(chosen) + 50):
        before = len(chosen)
        chosen[space.sample(rng)] = None
        in_vain = 0 if len(chosen) > before else in_vain + 1
    if len(chosen) < n and not at_most:
        raise OptionError(f"no more than {len(chosen):,} architectures of {space.name} were met, but {n:,} are wanted")
    return list(chosen)


def screen(
    evaluator: Evaluator,
    genotypes: Sequence[Genotype],
    *,
    rank_by: str | None = None,
    repeats: int = 1,
    executor: Executor | None = None,
    store: Store | None = None,
    on_result: Callable[[Evaluation], None] = lambda evaluation: None,
) -> list[Ranked]:
    """Score architectures and return them best first.

    Args:
        evaluator: what is scored and how.
        genotypes: the architectures.
        rank_by: score that decides, by default the evaluator's first; ties by architecture string.
        repeats: evaluations of each, with another batch and initialisation.
        executor: runs the evaluations; None: this process.
        store: known results come from it, new ones go to it.
        on_result: called with every evaluation, for a progress bar.
    Raises:
        OptionError: if ``rank_by`` is none of the evaluator's scores.
    """
    rank_by = rank_by or evaluator.names[0]
    if rank_by not in evaluator.names:
        raise OptionError(f"expected rank_by to be one of the scores {list(evaluator.names)}, but got {rank_by!r}")
    found: dict[Genotype, list[Evaluation]] = {}
    for evaluation in evaluator.map(genotypes, repeats=repeats, executor=executor, store=store):
        found.setdefault(evaluation.genotype, []).append(evaluation)
        on_result(evaluation)
    rows = [summarise(sorted(group, key=lambda e: e.repeat), evaluator.names) for group in found.values()]
    direction = 1.0 if get_proxy(rank_by).higher_is_better else -1.0

    def worst_last(row: Ranked) -> tuple[bool, float, str]:
        return row.error is not None, -direction * row.mean.get(rank_by, -direction * math.inf), row.arch

    return sorted(rows, key=worst_last)


def pick_contender(rows: Sequence[Ranked], *, seed: int = 0) -> Ranked | None:
    """A random scored architecture other than the first, to compare the winner with; None if there is no other."""
    others = sorted((row for row in rows[1:] if row.error is None), key=lambda row: row.arch)
    if not others or rows[0].error is not None:
        return None
    return others[int(numpy_generator(derive_seed(seed, "contender")).integers(len(others)))]


def summarise(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Ranked:
    """Mean and spread over the repeats of one architecture, for the scores of those names."""
    first = evaluations[0]
    error = next((e.error for e in evaluations if e.error is not None), None)
    good = [e for e in evaluations if e.error is None]
    values = {name: [e.scores[name] for e in good] for name in names} if good else {}
    spread = {
        name: statistics.stdev(v) if len(v) > 1 and all(map(math.isfinite, v)) else None for name, v in values.items()
    }
    return Ranked(
        genotype=first.genotype,
        arch=first.arch,
        mean={name: _mean(v) for name, v in values.items()},
        spread=spread,
        seconds=statistics.fmean(sum(e.seconds.values()) for e in evaluations),
        reasons={name: why for e in reversed(evaluations) for name, why in e.reasons.items() if name in names},
        error=error,
    )


def _mean(values: Sequence[float]) -> float:
    infinite = [value for value in values if math.isinf(value)]
    return infinite[0] if infinite else statistics.fmean(values)
