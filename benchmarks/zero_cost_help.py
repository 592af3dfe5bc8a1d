"""Whether NASWOT saves trainings: every strategy with every kind of help on NAS-Bench-201, run against run.

A search sees validation accuracy after 12 epochs and ends after 200 trainings. Counted is how many it needs until its
incumbent comes within so many points of the best cell there is: in validation accuracy after 12 epochs, which it sees,
and in test accuracy after 200 epochs, which it does not. A search that does not get there counts as 200 trainings. The
runs of one seed begin from the same random numbers with and without help, so that differences are paired.

A second count adds the time of the scores, in units of a mean training of 12 epochs. Scores took 1.1 s a cell on a busy
CPU, trainings are those of a GTX 1080 Ti: help that pays here pays more with scores on a GPU.

Verdicts are from bootstrap p-values of the mean paired difference after Holm's correction over all rows, at 5 %; the
intervals are 95 % of each by itself. Thresholds, kinds of help and the limit were fixed before any result was seen. One
rule was not: that prescreening prefers what was not tried before came after a first run, in which a population took the
same best-scored cells again and again (regularised evolution reached 1 point of regret in 21 % of runs).
Run: NASWOT_DATA=... python benchmarks/zero_cost_help.py
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write
from nb201_search import (
    BRIEF,
    FULL,
    IMAGES,
    Floats,
    check_macs,
    chunks,
    evaluator,
    in_workers,
    mean_training_seconds,
    run_seed,
    scorer,
    took,
    world,
)

from naswot.assisted import Assisted
from naswot.plots import new_figure
from naswot.searcher import Searcher, get_searcher
from naswot.searching import Budget, Record, run_search
from naswot.statistics import holm

LIMIT = 200
STRATEGIES = ("random", "regularized_evolution", "reinforce", "local_search", "predictor")
HELP: dict[str, dict[str, Any]] = {
    "none": {},
    "warm_up=100 keep=10": {"warm_up": 100, "keep": 10},
    "warm_up=1000 keep=10": {"warm_up": 1000, "keep": 10},
    "prescreen=10": {"prescreen": 10},
    "reject_below=0.5": {"reject_below": 0.5},
    "warm_up=1000 keep=10 prescreen=10": {"warm_up": 1000, "keep": 10, "prescreen": 10},
}
THRESHOLDS = (("valid", 2.0), ("valid", 1.0), ("valid", 0.5), ("test", 1.0), ("test", 0.5))
"""Points below the best there is: validation accuracy after 12 epochs, test accuracy after 200."""
TEST_SET = {"cifar10-valid": "cifar10"}
"""Data set whose test accuracy counts, where it is not the one searched on."""
RESAMPLES = 40_000


class _Reached(Exception):  # noqa: N818
    """Every threshold is reached, and nothing later can change that."""


class Watch:
    """Follows a search: trainings, and seconds of scoring, until each threshold was reached first.

    Args:
        valid: regret of each cell in what the search sees, by row.
        test: its regret in test accuracy.
    """

    def __init__(self, valid: Floats, test: Floats) -> None:
        self._regret = {"valid": valid, "test": test}
        self._training = 0.0
        self._best: int | None = None  # row of the incumbent
        self.trainings = np.full(len(THRESHOLDS), np.nan)
        self.scoring = np.full(len(THRESHOLDS), np.nan)

    def __call__(self, record: Record) -> None:
        """Take in a trial."""
        row = world().benchmark.row(record.trial.genotype)
        self._training += sum(record.evaluation.seconds.values())
        valid = self._regret["valid"]
        if self._best is None or valid[row] < valid[self._best]:
            self._best = row
        for place, (what, limit) in enumerate(THRESHOLDS):
            if np.isnan(self.trainings[place]) and self._regret[what][self._best] <= limit:
                self.trainings[place] = record.trial.number + 1
                self.scoring[place] = record.spent - self._training
        if not np.isnan(self.trainings).any():
            raise _Reached


def run_strategy(dataset: str, strategy: str, help_: str, first: int, last: int) -> Floats:
    """Trainings and seconds of scoring to each threshold, (runs, 2, thresholds); NaN trainings: not reached."""
    benchmark, looked_up = world().benchmark, evaluator(dataset)
    valid = benchmark.column(dataset, "valid_accuracy", epochs=BRIEF)
    test = benchmark.column(TEST_SET.get(dataset, dataset), "test_accuracy", epochs=FULL)
    found = []
    for run in range(first, last):
        searcher: Searcher = get_searcher(strategy, benchmark.space, seed=run_seed(run))
        if HELP[help_]:
            searcher = Assisted(searcher, scorer(), **HELP[help_])
        watch = Watch(valid.max() - valid, test.max() - test)
        with suppress(_Reached):
            run_search(searcher, looked_up, budget=Budget(evaluations=LIMIT), on_record=watch)
        scoring = np.where(np.isnan(watch.trainings), searcher.scoring_seconds, watch.scoring)
        found.append(np.stack([watch.trainings, scoring]))
    return np.stack(found)


# ----------------------------------------------------------------------------------------------------------- the table


def mean_differences(differences: Floats) -> tuple[Floats, Floats, Floats]:
    """Ends of 95 % intervals, and two-sided p-values, of the means of paired differences (runs, comparisons)."""
    runs = len(differences)
    draws = np.random.default_rng(0).multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES)
    means = draws @ differences / runs
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    tail = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    return low, high, np.minimum(1.0, 2 * (tail + 1) / (RESAMPLES + 1))


def verdicts(differences: Floats) -> list[dict[str, Any]]:
    """Mean, interval, p-value after Holm's correction and verdict of each column of paired differences."""
    low, high, p_values = mean_differences(differences)
    rows = []
    for mean, lower, upper, p in zip(differences.mean(axis=0), low, high, holm(list(p_values)), strict=True):
        verdict = "no difference" if p >= 0.05 else "pays" if mean < 0 else "costs"
        ends = {"low": round(float(lower), 1), "high": round(float(upper), 1)}
        rows.append({"difference": round(float(mean), 1), **ends, "p_holm": float(f"{p:.2g}"), "verdict": verdict})
    return rows


Key = tuple[str, str, str, int]
"""Data set, strategy, help, number of the threshold."""


def tabulate(found: Mapping[tuple[str, str, str], Floats]) -> dict[Key, dict[str, Any]]:
    """One row for each threshold of each search."""
    rows: dict[Key, dict[str, Any]] = {}
    plain: dict[Key, Floats] = {}
    charged: dict[Key, Floats] = {}
    for (dataset, strategy, help_), both in found.items():
        for place, (what, limit) in enumerate(THRESHOLDS):
            key = (dataset, strategy, help_, place)
            trainings, scoring = both[:, 0, place], both[:, 1, place] / mean_training_seconds(dataset)
            plain[key] = np.where(np.isnan(trainings), LIMIT, trainings)
            charged[key] = plain[key] + scoring
            rows[key] = {"dataset": dataset, "strategy": strategy, "help": help_, "regret": what, "points": limit}
            rows[key] |= {"runs": len(trainings), "reached": round(float((~np.isnan(trainings)).mean()), 3)}
            rows[key] |= {"median": float(np.median(plain[key])), "mean": round(float(plain[key].mean()), 1)}
            rows[key] |= {"scores_as_trainings": round(float(scoring.mean()), 1)}
    helped = [key for key in rows if key[2] != "none"]
    for prefix, counts in (("", plain), ("with_scores_", charged)):
        pairs = np.stack([counts[key] - counts[key[0], key[1], "none", key[3]] for key in helped], axis=1)
        for key, verdict in zip(helped, verdicts(pairs), strict=True):
            rows[key] |= {prefix + name: value for name, value in verdict.items()}
    columns = list(rows[helped[0]])
    return {key: dict.fromkeys(columns, "") | row for key, row in rows.items()}


def summary(rows: Mapping[Key, Mapping[str, Any]], help_: str) -> str:
    """How often a kind of help pays, over all strategies, data sets and thresholds."""
    told = []
    for column, words in (("verdict", "counting trainings"), ("with_scores_verdict", "with the time of the scores")):
        counts = Counter(row[column] for key, row in rows.items() if key[2] == help_)
        each = ", ".join(f"{name} {counts[name]}" for name in ("pays", "costs", "no difference"))
        told.append(f"{words}: {each}")
    return "; ".join(told)


def draw(rows: Mapping[Key, Mapping[str, Any]], picture: Path) -> None:
    """Paired differences with their intervals: filled without, hollow with the time of the scores."""
    datasets, helps = list(dict.fromkeys(key[0] for key in rows)), [name for name in HELP if name != "none"]
    figure = new_figure(13.0, 1.0 + 2.5 * len(datasets))
    grid = figure.subplots(len(datasets), len(STRATEGIES), sharex=True, sharey=True, squeeze=False)
    shown = (1, 3)  # 1 point of either regret
    for (line, dataset), (column, strategy) in ((a, b) for a in enumerate(datasets) for b in enumerate(STRATEGIES)):
        axes = grid[line, column]
        if (dataset, strategy, "none", 0) not in rows:
            axes.set_visible(False)
            continue
        axes.axvline(0, color="0.6", lw=0.8)
        for number, (place, prefix) in enumerate((p, x) for p in shown for x in ("", "with_scores_")):
            for height, help_ in enumerate(helps):
                row, y = rows[dataset, strategy, help_, place], height + 0.18 * (number - 1.5)
                color = f"C{shown.index(place)}"
                axes.plot([row[f"{prefix}low"], row[f"{prefix}high"]], [y, y], color=color, lw=1)
                fill = "none" if prefix else color
                axes.plot([row[f"{prefix}difference"]], [y], "o", ms=4, color=color, markerfacecolor=fill)
        axes.set_yticks(range(len(helps)), helps, fontsize=7)
        axes.grid(axis="x", alpha=0.25)
        axes.set_title(f"{strategy}, {dataset}", fontsize=8)
    grid[0, 0].invert_yaxis()
    for place in shown:
        what, limit = THRESHOLDS[place]
        grid[0, -1].plot([], [], "o", ms=4, color=f"C{shown.index(place)}", label=f"{what} regret {limit:g}")
    grid[0, -1].plot([], [], "o", ms=4, color="0.4", markerfacecolor="none", label="scores counted")
    grid[0, -1].legend(fontsize=6)
    figure.supxlabel(
        "trainings more (right) or fewer (left) than without help, mean of pairs and 95 % interval", size=9
    )
    figure.savefig(picture, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="verdicts need about a hundred")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--datasets", nargs="+", default=list(IMAGES))
    parser.add_argument("--predictor-on", nargs="*", default=["cifar10-valid"], help="where the slowest strategy runs")
    given = parser.parse_args()
    start = time.perf_counter()
    pairs = [(d, s) for d in given.datasets for s in STRATEGIES if s != "predictor" or d in given.predictor_on]
    searches = [(*pair, help_) for pair in pairs for help_ in HELP]
    jobs = [(*search, *chunk) for search in searches for chunk in chunks(given.runs, 100)]
    jobs.sort(key=lambda job: job[1] != "predictor")  # the slowest first
    parts = dict(in_workers(run_strategy, jobs, given.workers))
    found = {search: np.concatenate([parts[job] for job in sorted(parts) if job[:3] == search]) for search in searches}
    rows = tabulate(found)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(rows, given.out / "zero_cost_help.png")
    about: dict[str, Any] = {
        "limit": f"{LIMIT} trainings; what did not get there counts as that many; seeds derived from 0 up",
        "scores": "naswot of CIFAR-10 on every data set; " + _mean_trainings(given.datasets),
        "macs": check_macs(),
        "verdicts": f"Holm over {sum(key[2] != 'none' for key in rows)} rows, {RESAMPLES:,} resamples of the runs",
        **{help_: summary(rows, help_) for help_ in HELP if help_ != "none"},
        "took": took(start, given.workers),
    }
    write("zero_cost_help", list(rows.values()), out=given.out, **about)


def _mean_trainings(datasets: Sequence[str]) -> str:
    each = ", ".join(f"{mean_training_seconds(dataset):.0f} s on {dataset}" for dataset in datasets)
    return f"a mean training is {each}"


if __name__ == "__main__":
    main()
