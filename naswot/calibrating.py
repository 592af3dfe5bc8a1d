"""Whether proxies help on architectures of one's own: 20 to 200 trained ones and their scores give a verdict.

Of every score: tau with accuracy in its declared direction, its interval, tau given size, and the difference from the
best measure of size on the same architectures. Of all scores together: a combination learned from them, cross-validated
(:mod:`naswot._crossfit`). A score that ranks backwards is called reversed and never turned round.

**When something is shown.** That a tau is not 0 is tested by Kendall's test, exact for up to 33 architectures without
ties; that it is higher than the baseline's by the paired test of :func:`naswot.statistics.compare`. Both are two-sided
at 5 % with Holm's correction over all scores and the combination, so that among scores without any relation *one* is
taken for helpful in at most 2.5 % of cases. The intervals in the table are of each score alone. The baseline is the
measure of size with the highest tau here, which makes it look a little better than it is, and proxies a little worse.

**Usefulness.** A score whose interval lies below the smallest useful tau (0.3 unless told otherwise: 65 % of pairs in
the right order) does not help, shown or not; that *all* lie below needs no correction. If nothing is shown and
something useful not excluded, there are too few architectures. How many would do: so many that intervals, corrected,
reach half a useful tau to either side, because then one of the two must happen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, rankdata

from naswot._crossfit import cross_fit
from naswot.errors import InputError, OptionError, unknown_name
from naswot.statistics import (
    Comparison,
    Estimate,
    Floats,
    bootstrap,
    compare,
    holm,
    kendall,
    kendall_interval,
    needed_for,
    paired,
    partial_kendall,
)

SIZE = ("params", "flops", "trainable_layers")
"""Scores that count as measures of size."""
MINIMUM = 8
"""Fewest architectures that are looked at; a score known for fewer takes no part in the verdict."""
LEVEL = 0.95
COMBINATION = "combination"


class Verdict(StrEnum):
    """What to do."""

    PROXY = "proxies help"
    COMBINATION = "use the combination"
    SIZE = "size alone is as good"
    NONE = "proxies do not help here"
    TOO_FEW = "too few architectures to tell"


class Sign(StrEnum):
    """On which side of 0 the interval of a tau lies, in the declared direction."""

    DECLARED = "as declared"
    REVERSED = "reversed"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Standing:
    """What one score tells about accuracy.

    Args:
        name: of the score.
        tau: with accuracy, in the declared direction; of the combination the cross-validated one.
        n_finite: architectures with a finite score.
        sign: whether the interval is on the declared side of 0.
        p_value: two-sided, of tau 0, corrected for all scores.
        given: by measure of size, the partial tau given it. Small rather than 0 where the score says no more than size:
            unlike a partial correlation, a partial tau does not vanish with the relation.
        above: tau minus that of the best measure of size, its p-value corrected for all scores; None of size itself.
    """

    name: str
    tau: Estimate
    n_finite: int
    sign: Sign
    p_value: float
    given: Mapping[str, Estimate]
    above: Comparison | None = None

    @property
    def shown(self) -> bool:
        """Whether it is shown to rank in the declared direction."""
        return self.tau.value > 0 and self.p_value < 1 - LEVEL

    @property
    def shown_above_size(self) -> bool:
        """Whether it is shown to rank better than the best measure of size."""
        return self.above is not None and _gains(self.above)


@dataclass(frozen=True)
class Combination:
    """A weighted sum of normal scores of ranks, learned from all architectures and judged by cross-validation.

    Args:
        standing: as of any score, out of fold.
        weights: positive ones by name, of sum 1; for scores in their declared direction.
        single: out-of-fold tau of the best single score, chosen anew in each training part.
        gain: the combination over that single score.
    """

    standing: Standing
    weights: Mapping[str, float]
    single: Estimate
    gain: Comparison


@dataclass(frozen=True)
class Calibration:
    """What a set of trained architectures tells about proxies.

    Args:
        n: architectures.
        proxies: every score, the highest tau first.
        combination: None where there are not two scores to combine.
        sizes: the measures of size among the scores.
        baseline: the one of them with the highest tau, if there is one.
        ceiling: mean tau between two trainings of the same architectures, if several were given.
        useful: the tau that counts as useful.
        verdict: what to do.
        use: the score to use, if any.
        more: how many more architectures are needed about, if there are too few.
        text: the verdict in sentences.
    """

    n: int
    proxies: tuple[Standing, ...]
    combination: Combination | None
    sizes: tuple[str, ...]
    baseline: str | None
    ceiling: Estimate | None
    useful: float
    verdict: Verdict
    use: str | None
    more: int | None
    text: str


def calibrate(
    names: Sequence[str],
    scores: ArrayLike,
    accuracies: ArrayLike,
    *,
    lower_is_better: Sequence[str] = (),
    baselines: Sequence[str] = SIZE,
    trainings: ArrayLike | None = None,
    useful: float = 0.3,
    seed: int = 0,
) -> Calibration:
    """Judge scores by the accuracies of trained architectures.

    Args:
        names: of the P scores.
        scores: (n, P); minus infinity ranks worst, NaN is unknown and left out.
        accuracies: (n,), higher is better.
        lower_is_better: names of the scores of which less is declared to be better.
        baselines: names of the measures of size; those not among ``names`` are passed over.
        trainings: accuracies of single trainings, (n, S), NaN where there is none, for the tau between them.
        useful: smallest tau worth having, within (0, 1).
        seed: of the cross-validation.
    Raises:
        InputError: for shapes that do not fit, fewer than 8 architectures, NaN or one and the same as accuracies, or
            scores of which none tells any two architectures apart.
        OptionError: if ``useful`` is not within (0, 1).
        UnknownNameError: for a name in ``lower_is_better`` that no score has.
    Example:
        >>> result = calibrate(["up", "noise"], [[i, i * 7 % 10] for i in range(30)], range(30))
        >>> result.verdict.value, result.use
        ('proxies help', 'up')
    """
    columns, truth = _checked(names, scores, accuracies, useful)
    for name in lower_is_better:
        if name not in names:
            raise unknown_name("score", name, names)
    columns = columns * np.where([name in lower_is_better for name in names], -1.0, 1.0)
    oriented = dict(zip(names, columns.T, strict=True))
    size = {name: oriented[name] for name in baselines if name in oriented}
    taus = {name: kendall(column, truth) for name, column in oriented.items()}
    baseline = max((name for name in size if not math.isnan(taus[name])), key=lambda name: taus[name], default=None)
    standings = [_standing(name, column, truth, size, baseline) for name, column in oriented.items()]
    combination = _combination(oriented, truth, baseline, seed)
    if combination is not None:
        standings.append(combination.standing)
    standings = _corrected(standings)
    if combination is not None:
        combination = replace(combination, standing=standings.pop())
    standings.sort(key=lambda s: -math.inf if math.isnan(s.tau.value) else s.tau.value, reverse=True)
    ceiling = None if trainings is None else _ceiling(trainings, len(truth), seed)
    found = Calibration(
        *(len(truth), tuple(standings), combination, tuple(size), baseline, ceiling, useful),
        *(Verdict.TOO_FEW, None, None, ""),  # until it is judged
    )
    return _judged(found)


# ----------------------------------------------------------------------------------------------------- the statistics


def _checked(names: Sequence[str], scores: ArrayLike, accuracies: ArrayLike, useful: float) -> tuple[Floats, Floats]:
    columns, truth = np.asarray(scores, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    if truth.ndim != 1 or columns.shape != (len(truth), len(names)):
        expected = f"scores of shape (n, {len(names)}) and accuracies of shape (n,)"
        raise InputError(f"expected {expected}, but got {columns.shape} and {truth.shape}")
    if len(truth) < MINIMUM:
        raise InputError(f"expected at least {MINIMUM} architectures, better 20 to 200, but got {len(truth)}")
    if len(set(names)) != len(names):
        raise InputError(f"expected names that differ, but got {', '.join(names)}")
    if np.isnan(truth).any():
        raise InputError(f"the accuracy of {np.isnan(truth).sum()} of {len(truth)} architectures is NaN")
    if np.ptp(rankdata(truth)) == 0:
        raise InputError(f"all {len(truth)} architectures have the same accuracy, {truth[0]}: there is nothing to rank")
    if not any(len(np.unique(column[~np.isnan(column)])) > 1 for column in columns.T):
        raise InputError("no score tells any two architectures apart")
    if not 0 < useful < 1:
        raise OptionError(f"expected a useful tau within (0, 1), but got {useful}")
    return columns, truth


def _standing(name: str, column: Floats, truth: Floats, size: Mapping[str, Floats], baseline: str | None) -> Standing:
    tau = kendall_interval(column, truth)
    given = {other: partial_kendall(column, truth, known) for other, known in size.items() if other != name}
    above = None if baseline is None or name in size else compare(column, size[baseline], truth)
    return Standing(name, tau, int(np.isfinite(column).sum()), _sign(tau), _p_value(column, truth), given, above)


def _combination(oriented: Mapping[str, Floats], truth: Floats, baseline: str | None, seed: int) -> Combination | None:
    names = [name for name, column in oriented.items() if not math.isnan(kendall(column, truth))]
    if len(names) < 2:
        return None
    columns = np.stack([oriented[name] for name in names], axis=1)
    fit = cross_fit(columns, truth, None if baseline is None else oriented[baseline], level=LEVEL, seed=seed)
    n_finite = int(np.isfinite(columns).all(axis=1).sum())
    standing = Standing(COMBINATION, fit.combination, n_finite, _sign(fit.combination), fit.p_value, {}, fit.against)
    weights = {name: float(w) for w, name in sorted(zip(fit.weights, names, strict=True), reverse=True) if w > 0}
    return Combination(standing, weights, fit.single, fit.gain)


def _sign(tau: Estimate) -> Sign:
    perfect = round(tau.value, 9) if math.isnan(tau.low) else 0  # a perfect order has no interval
    if tau.low > 0 or perfect == 1:
        return Sign.DECLARED
    return Sign.REVERSED if tau.high < 0 or perfect == -1 else Sign.UNCLEAR


def _p_value(column: Floats, truth: Floats) -> float:
    """Two-sided, of no relation."""
    x, y = paired(column, truth)
    if len(x) < MINIMUM or np.ptp(rankdata(x)) == 0 or np.ptp(y) == 0:
        return 1.0
    return float(kendalltau(rankdata(x), rankdata(y)).pvalue)


def _corrected(standings: Sequence[Standing]) -> list[Standing]:
    """The same with p-values by Holm's procedure, tests of tau and comparisons each a family of their own."""
    ranked = holm([each.p_value for each in standings])
    compared = holm([1.0 if each.above is None else each.above.p_value for each in standings if each.above])
    differences = iter(compared)
    return [
        replace(each, p_value=p, above=each.above and replace(each.above, p_value=next(differences)))
        for each, p in zip(standings, ranked, strict=True)
    ]


def _ceiling(trainings: ArrayLike, n: int, seed: int) -> Estimate:
    """Mean tau over all pairs of trainings, with its bootstrap interval over the architectures."""
    table = np.asarray(trainings, dtype=np.float64)
    if table.ndim != 2 or len(table) != n or table.shape[1] < 2:
        raise InputError(f"expected accuracies of single trainings of shape ({n}, 2 or more), but got {table.shape}")

    def mean_tau(rows: Floats, _: Floats) -> float:
        drawn = table[rows.astype(np.int64)]
        taus = [kendall(drawn[:, i], drawn[:, j]) for i, j in itertools.combinations(range(table.shape[1]), 2)]
        return float(np.nanmean(taus)) if not np.isnan(taus).all() else math.nan

    rows = np.arange(n, dtype=np.float64)
    return bootstrap(mean_tau, rows, rows, resamples=200, level=LEVEL, seed=seed)


# -------------------------------------------------------------------------------------------------------- the verdict


def _judged(found: Calibration) -> Calibration:
    """The calibration with its verdict."""
    standings = [*found.proxies, *([found.combination.standing] if found.combination else [])]
    possible = [each for each in standings if each.tau.n >= MINIMUM and _upper(each.tau) >= found.useful]
    helpful = [each for each in possible if each.shown]
    if not possible:
        return _none(found, max(standings, key=lambda each: _upper(each.tau)))
    if not helpful:
        return _too_few(found, max(possible, key=lambda each: each.tau.value), len(standings))
    others = [each for each in helpful if each.above is not None or found.baseline is None]
    size = next((each for each in helpful if each not in others), None)
    better = others if size is None else [each for each in others if each.shown_above_size]
    if not better and size is not None:
        return _size_will_do(found, size)
    single = next((each for each in better if each.name != COMBINATION), None)
    combined = found.combination
    if combined is not None and combined.standing in better and (single is None or _gains(combined.gain)):
        return _combined(found, combined)
    assert single is not None, "something is better, and it is not the combination"
    return _single(found, single)


def _gains(comparison: Comparison) -> bool:
    return comparison.difference.value > 0 and comparison.p_value < 1 - LEVEL


def _none(found: Calibration, best: Standing) -> Calibration:
    text = f"By these {found.n} architectures a tau of {found.useful:g} or more lies outside all intervals, those of "
    text += f"{len(found.proxies)} scores and of their combination; the highest goes up to {_upper(best.tau):.2f} "
    text += f"({best.name})."
    return _with_verdict(found, Verdict.NONE, None, text)


def _too_few(found: Calibration, best: Standing, n_tests: int) -> Calibration:
    target = needed_for(found.useful / 2, tau=found.useful / 2, level=1 - (1 - LEVEL) / n_tests)
    more = max(target - found.n, math.ceil(found.n / 4))
    text = f"None of {len(found.proxies)} scores is shown to rank these {found.n} architectures, but a useful tau of "
    text += f"{found.useful:g} is not excluded ({best.name}: {best.tau}). About {more} more are needed."
    return replace(_with_verdict(found, Verdict.TOO_FEW, None, text), more=more)


def _size_will_do(found: Calibration, size: Standing) -> Calibration:
    text = f"Use {size.name}: {_in_words(size.tau)}."
    others = [*found.proxies, *([found.combination.standing] if found.combination else [])]
    compared = [(each.above.difference.value, each.name, each.above) for each in others if each.above is not None]
    if compared:
        _, name, above = max(compared, key=lambda each: each[0])
        text += f" Nothing is shown to rank better; the best of the rest, {name}, has {_signed(above)} against "
        text += f"{found.baseline} (p = {above.p_value:.2g}, corrected for the number of scores)."
    return _with_verdict(found, Verdict.SIZE, size.name, text)


def _single(found: Calibration, single: Standing) -> Calibration:
    text = f"Use {single.name}: {_in_words(single.tau)}."
    if found.combination is not None:
        text += " Chosen without the architectures it is judged by, the best single score has tau "
        text += f"{found.combination.single}."
    return _with_verdict(found, Verdict.PROXY, single.name, text + _above_size(found, single))


def _combined(found: Calibration, combined: Combination) -> Calibration:
    parts = " + ".join(f"{weight:.2f} {name}" for name, weight in combined.weights.items() if weight >= 0.005)
    text = f"It is {parts}, on normal scores of ranks; cross-validated, {_in_words(combined.standing.tau)}."
    text += f" Against the best single score, chosen likewise, that is {_signed(combined.gain)}."
    return _with_verdict(found, Verdict.COMBINATION, COMBINATION, text + _above_size(found, combined.standing))


def _with_verdict(found: Calibration, verdict: Verdict, use: str | None, text: str) -> Calibration:
    backwards = [each for each in found.proxies if each.tau.value < 0 and each.p_value < 1 - LEVEL]
    if backwards:
        turned = ", ".join(f"{each.name} ({each.tau})" for each in backwards)
        text += f" Shown to be reversed here: {turned}; a score that ranks backwards is not turned round."
    return replace(found, verdict=verdict, use=use, text=f"{verdict.value.capitalize()}. {text}")


def _upper(tau: Estimate) -> float:
    """Upper end of an interval; of a perfect order, which has none, the value; of an undefined tau the lowest."""
    return -1.0 if math.isnan(tau.value) else tau.value if math.isnan(tau.high) else tau.high


def _in_words(tau: Estimate) -> str:
    return f"tau {tau}, the better of two architectures comes first in about {50 * (1 + tau.value):.0f} % of pairs"


def _signed(comparison: Comparison) -> str:
    difference = comparison.difference
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _above_size(found: Calibration, standing: Standing) -> str:
    if standing.above is None:
        return ""
    return f" Against {found.baseline}, the best measure of size here, the difference is {_signed(standing.above)}."
