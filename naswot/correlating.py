"""How well scores of untrained networks rank trained results: a benchmark, some proxies, one table.

The module is not called ``correlate``, because :func:`naswot.correlate` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from naswot import selection
from naswot.benchmark import LOWER_IS_BETTER, Benchmark
from naswot.errors import InputError, OptionError
from naswot.evaluate import Evaluator, Store
from naswot.proxy import get_proxy
from naswot.run import summarise
from naswot.seeding import derive_seed, numpy_generator
from naswot.statistics import (
    Comparison,
    Estimate,
    Floats,
    compare,
    holm,
    kendall,
    kendall_interval,
    partial_kendall,
    pearson,
    spearman,
    weighted_kendall,
)
from naswot.types import Evaluation, Genotype

BASELINES = ("params", "flops", "trainable_layers")
"""Scores that only tell size; a proxy that does not beat them has found out nothing."""

TOP_SHARES = (0.1, 0.25, 0.5)
FEWEST_IN_TOP = 8
"""Of fewer architectures than that no tau is told."""


@dataclass(frozen=True)
class Scores:
    """Scores of a sample of a benchmark's architectures.

    Args:
        genotypes: the n architectures.
        archs: their strings.
        values: (n,) each by proxy, the mean over repeats, higher is better; infinite where the score is not defined,
            NaN where the network failed.
        seconds: (n,) of one evaluation by all proxies, building included.
        errors: of networks that failed, by architecture string.
    """

    genotypes: tuple[Genotype, ...]
    archs: tuple[str, ...]
    values: Mapping[str, Floats]
    seconds: Floats
    errors: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One proxy against one data set.

    Args:
        dataset: the data set.
        proxy: the score.
        undefined: architectures on which the score is infinite; they rank by that.
        tau: Kendall's tau-b with its interval, and the number of architectures.
        spearman: rank correlation.
        pearson: linear correlation of the finite scores.
        weighted: tau by which the best count most.
        top: tau among the best share of the architectures, by share; NaN where that is fewer than 8.
        precision: share of the best tenth by score that is in the best tenth in truth.
        best_rank: true rank of the best among the ten (or fewer) best by score.
        regret: what the architecture of the highest score lacks to the best, in the unit of the truth.
        ndcg: of the best tenth by score.
        given: partial tau given each baseline.
        over: difference of tau to the strongest baseline on this data set; None for baselines.
        p_value: of that difference, after Holm's correction over the proxies of this data set.
    """

    dataset: str
    proxy: str
    undefined: int
    tau: Estimate
    spearman: float
    pearson: float
    weighted: float
    top: Mapping[float, float]
    precision: float
    best_rank: int
    regret: float
    ndcg: float
    given: Mapping[str, Estimate]
    over: Comparison | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Correlation:
    """What :func:`correlate` finds.

    Args:
        benchmark: its name.
        metric: the truth.
        scores: of the sample.
        truth: (n,) by data set, oriented so that higher is better.
        rows: one for each data set and proxy, the strongest first within a data set.
        ceiling: tau between the results of two trainings by data set, the mean over pairs, where they are told apart.
    """

    benchmark: str
    metric: str
    scores: Scores
    truth: Mapping[str, Floats]
    rows: tuple[Row, ...]
    ceiling: Mapping[str, float]


def sample_of(
    benchmark: Benchmark, n: int | None, *, seed: int = 0, among: NDArray[np.bool_] | None = None
) -> list[Genotype]:
    """``n`` distinct architectures of a benchmark drawn uniformly, or all; the first of them do not depend on ``n``.

    Args:
        benchmark: what is drawn from.
        n: how many at most; None: all.
        seed: of the draw.
        among: (len(benchmark),) those that may be drawn; None: all.
    """
    if n is not None and n < 1:
        raise OptionError(f"expected at least 1 architecture, but got n={n}")
    genotypes = list(benchmark.genotypes())
    order = numpy_generator(derive_seed(seed, "correlate", benchmark.name)).permutation(len(genotypes))
    allowed = order if among is None else order[among[order]]
    return [genotypes[row] for row in allowed[:n]]


def scores_of(
    evaluator: Evaluator,
    genotypes: Sequence[Genotype],
    *,
    repeats: int = 1,
    executor: Executor | None = None,
    store: Store | None = None,
    on_result: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Scores:
    """Score architectures; arguments as of :meth:`naswot.evaluate.Evaluator.map`."""
    groups: dict[Genotype, list[Evaluation]] = {genotype: [] for genotype in genotypes}
    for evaluation in evaluator.map(genotypes, repeats=repeats, executor=executor, store=store):
        groups[evaluation.genotype].append(evaluation)
        on_result(evaluation)
    ranked = [summarise(sorted(group, key=lambda e: e.repeat), evaluator.names) for group in groups.values()]
    values = {}
    for name in evaluator.names:
        direction = 1.0 if get_proxy(name).higher_is_better else -1.0
        found = [direction * row.mean.get(name, math.nan) if row.error is None else math.nan for row in ranked]
        values[name] = np.array(found, dtype=np.float64)
    errors = {row.arch: row.error for row in ranked if row.error is not None}
    return Scores(
        tuple(groups), tuple(row.arch for row in ranked), values, np.array([row.seconds for row in ranked]), errors
    )


def correlate(
    benchmark: Benchmark,
    evaluator: Evaluator,
    *,
    n: int | None = 200,
    datasets: Sequence[str] | None = None,
    metric: str = "test_accuracy",
    epochs: int | None = None,
    level: float = 0.95,
    repeats: int = 1,
    executor: Executor | None = None,
    store: Store | None = None,
    on_result: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Correlation:
    """Score a random sample of a benchmark and tell how well each score ranks its trained results.

    Args:
        benchmark: trained results.
        evaluator: proxies, images and seed; its space must be the benchmark's.
        n: architectures, drawn by the evaluator's seed among those with a result; None: all.
        datasets: those whose results are ranked; None: all that have the metric.
        metric: the truth.
        epochs: length of the training; None: the longest.
        level: of the intervals.
        repeats: batches and initialisations of each architecture.
        executor: runs the evaluations; None: this process.
        store: known scores come from it, new ones go to it.
        on_result: called with every evaluation.
    Raises:
        OptionError: if the evaluator's space is not the benchmark's.
        UnknownNameError: if the benchmark has no such data set or metric.
        InputError: if fewer than 3 architectures have a result.
    """
    if evaluator.space.name != benchmark.space.name:
        raise OptionError(f"{benchmark.name} is of space {benchmark.space.name}, not of {evaluator.space.name}")
    datasets = datasets_with(benchmark, metric) if datasets is None else list(datasets)
    results = [
        benchmark.column(dataset, metric, epochs=epochs) for dataset in datasets
    ]  # refused before hours of scoring
    known = np.array(np.isfinite(np.stack(results)).any(axis=0), ndmin=1)
    genotypes = sample_of(benchmark, n, seed=evaluator.seed, among=known)
    scores = scores_of(evaluator, genotypes, repeats=repeats, executor=executor, store=store, on_result=on_result)
    truth, rows, ceiling = {}, [], {}
    places = {genotype: place for place, genotype in enumerate(benchmark.genotypes())}
    chosen = [places[genotype] for genotype in scores.genotypes]
    for dataset in datasets:
        truth[dataset] = orientation(metric) * benchmark.column(dataset, metric, epochs=epochs)[chosen]
        rows += tabulate(dataset, scores.values, truth[dataset], level=level)
        agreement = agreement_of_trainings(benchmark, dataset, metric, epochs, chosen)
        if not math.isnan(agreement):
            ceiling[dataset] = agreement
    return Correlation(benchmark.name, metric, scores, truth, tuple(rows), ceiling)


def datasets_with(benchmark: Benchmark, metric: str) -> list[str]:
    """Data sets of which a benchmark knows the metric; if there is none, it says what there is.

    Raises:
        UnknownNameError: if no data set has it.
    """
    found = [dataset for dataset in benchmark.datasets if metric in benchmark.metrics(dataset)]
    if not found:
        benchmark.column(benchmark.datasets[0], metric)
    return found


def main_metric(benchmark: Benchmark) -> str:
    """The metric that is meant if none is named: ``test_accuracy``, ``accuracy``, or the only one there is.

    Raises:
        OptionError: if there are others, of which one must choose.
    """
    metrics = dict.fromkeys(column.metric for column in benchmark.columns)
    for name in ("test_accuracy", "accuracy"):
        if name in metrics:
            return name
    if len(metrics) == 1:
        return next(iter(metrics))
    raise OptionError(f"{benchmark.name} has no test_accuracy; choose a metric: {', '.join(metrics)}")


def orientation(metric: str) -> float:
    """1 if more of a metric is better, -1 if less is."""
    return -1.0 if any(word in metric for word in LOWER_IS_BETTER) else 1.0


def agreement_of_trainings(
    benchmark: Benchmark, dataset: str, metric: str, epochs: int | None, chosen: Sequence[int]
) -> float:
    """Mean tau between the results of two trainings over the chosen architectures; NaN if they are not told apart."""
    seeds = benchmark.seeds(dataset, metric, epochs=epochs)
    columns = [benchmark.column(dataset, metric, epochs=epochs, seed=seed)[chosen] for seed in seeds]
    taus = [kendall(first, second) for first, second in combinations(columns, 2)]
    known = [tau for tau in taus if not math.isnan(tau)]
    return sum(known) / len(known) if known else math.nan


def tabulate(dataset: str, scores: Mapping[str, Floats], truth: Floats, *, level: float = 0.95) -> list[Row]:
    """All measures of every score against one truth, the highest tau first.

    Args:
        dataset: name for the rows.
        scores: (n,) by name, higher is better.
        truth: (n,), higher is better; NaN where it is not known.
        level: of the intervals.
    Raises:
        InputError: if fewer than 3 architectures have a result, or all have the same.
    """
    known = ~np.isnan(truth)
    if np.count_nonzero(known) < 3:
        raise InputError(f"{dataset}: {np.count_nonzero(known)} architectures have a result, 3 are needed at least")
    if np.ptp(truth[known]) == 0:
        raise InputError(
            f"{dataset}: all {np.count_nonzero(known)} architectures have the same result, nothing to rank"
        )
    rows = [_row(dataset, name, scores, truth, level) for name in scores]
    rows.sort(key=lambda row: (math.isnan(row.tau.value), -row.tau.value))
    return _against_size(rows, scores, truth, level)


def _row(dataset: str, name: str, scores: Mapping[str, Floats], truth: Floats, level: float) -> Row:
    score = scores[name]
    n = int(np.count_nonzero(~np.isnan(truth)))
    ten, tenth = min(10, n), math.ceil(n / 10)
    given = {
        base: partial_kendall(score, truth, scores[base], level=level)
        for base in BASELINES
        if base in scores and base != name
    }
    return Row(
        dataset=dataset,
        proxy=name,
        undefined=int(np.isinf(score).sum()),
        tau=kendall_interval(score, truth, level=level),
        spearman=spearman(score, truth),
        pearson=pearson(score, truth),
        weighted=weighted_kendall(score, truth),
        top={share: _tau_in_top(score, truth, share, n) for share in TOP_SHARES},
        precision=selection.precision_at(score, truth, tenth),
        best_rank=selection.best_rank_at(score, truth, ten),
        regret=selection.regret_at(score, truth, 1),
        ndcg=selection.ndcg_at(score, truth, tenth),
        given=given,
    )


def _tau_in_top(score: Floats, truth: Floats, share: float, n: int) -> float:
    return selection.tau_in_top(score, truth, share) if share * n >= FEWEST_IN_TOP else math.nan


def _against_size(rows: Sequence[Row], scores: Mapping[str, Floats], truth: Floats, level: float) -> list[Row]:
    """Rows with the paired comparison to the strongest baseline (they come strongest first)."""
    baselines = [row.proxy for row in rows if row.proxy in BASELINES]
    tested = [row.proxy for row in rows if row.proxy not in BASELINES and baselines]
    compared = {proxy: compare(scores[proxy], scores[baselines[0]], truth, level=level) for proxy in tested}
    corrected = dict(zip(compared, holm([comparison.p_value for comparison in compared.values()]), strict=True))
    return [replace(row, over=compared.get(row.proxy), p_value=corrected.get(row.proxy)) for row in rows]
