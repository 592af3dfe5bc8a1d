"""What the scripts that search on the table of NAS-Bench-201 share: table, clock, scores, worker processes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from common import RESULTS, data_root
from numpy.typing import NDArray

from naswot.assisted import TableScorer
from naswot.benchmark import Benchmark, get_benchmark
from naswot.constraints import network_costs
from naswot.data import get_data
from naswot.errors import DataError
from naswot.reproduce.scores import read_scores
from naswot.seeding import derive_seed
from naswot.table_evaluator import FlopsClock, TableEvaluator
from naswot.types import Genotype
from naswot.workers import worker_pool

Floats = NDArray[np.float64]

SCORES = RESULTS / "nasbench201_naswot.csv.gz"
BASE_MACS, MACS_1X1, MACS_3X3 = 7_783_050, 3_932_160, 35_389_440
"""Of a network without convolutions in its cells, and of a 1x1 or 3x3 edge in all 15 of them, at 32 x 32 pixels."""
BIAS = 10  # the published counts hold the additions of the classifier's bias, naswot's MACs do not
IMAGES = {"cifar10-valid": 25_000, "cifar100": 50_000, "ImageNet16-120": 151_700}
"""Training images by data set. The official times of one cell are proportional to them, whatever the image size."""
BRIEF, FULL = 12, 200
"""Epochs the table knows."""


@dataclass(frozen=True)
class World:
    """The table, and NASWOT of all its cells on CIFAR-10 with the seconds each took."""

    benchmark: Benchmark
    scores: dict[Genotype, float]
    seconds: dict[Genotype, float]


@cache
def world() -> World:
    benchmark = get_benchmark("nasbench201", data_root())
    known = read_scores(SCORES, benchmark)
    if not known.covers(benchmark):
        sys.exit(f"{SCORES} does not score all of NAS-Bench-201")
    genotypes = list(benchmark.genotypes())
    cells = [genotypes[row] for row in known.rows]
    scores, seconds = known.naswot.tolist(), known.seconds.tolist()
    return World(benchmark, dict(zip(cells, scores, strict=True)), dict(zip(cells, seconds, strict=True)))


def scorer() -> TableScorer:
    """A new one, which has scored nothing yet."""
    return TableScorer(world().scores, seconds=world().seconds)


@cache
def evaluator(dataset: str, constant: float | None = None) -> TableEvaluator:
    """Validation accuracy after 12 epochs unless a trial wants 200; ``constant``: seconds of every 12 epochs."""
    images = IMAGES[dataset]
    clock = FlopsClock(images) if constant is None else FlopsClock(images, constant / (BRIEF * images), 0.0)
    return TableEvaluator(world().benchmark, dataset, epochs=BRIEF, flops=macs, clock=clock)


def macs(genotype: Genotype) -> float:
    return BASE_MACS + MACS_1X1 * genotype.count(2) + MACS_3X3 * genotype.count(3)


def check_macs() -> str:
    """Compare with built networks and the published records; what was compared, in words."""
    space = world().benchmark.space
    counted = network_costs(space, get_data("digits", size=32))["flops"]
    rng = np.random.default_rng(0)
    built: list[Genotype] = [(0,) * 6, (2,) * 6, (3,) * 6, *(space.sample(rng) for _ in range(5))]
    wrong = [genotype for genotype in built if counted(genotype) + BIAS != macs(genotype)]
    try:
        official = get_benchmark("nasbench201", data_root() / "nasbench201" / "original" / "NATS-tss-v1_0-3ffb9-simple")
    except DataError:
        cells = []
    else:
        cells = list(official.genotypes())
        published = official.column("cifar10", "flops")
        wrong += [genotype for genotype in cells if macs(genotype) != published[official.row(genotype)]]
    if wrong:
        sys.exit(f"MACs are not those of {wrong}")
    return f"equal to naswot's of {len(built)} built networks and to the published of {len(cells)} official records"


def mean_training_seconds(dataset: str) -> float:
    """Mean over all cells of the estimate for 12 epochs."""
    clock = FlopsClock(IMAGES[dataset])
    return float(np.mean([clock.seconds(macs(genotype), BRIEF) for genotype in world().scores]))


def run_seed(run: int) -> int:
    """Seed of a run: the same for every strategy and help, so that runs are paired."""
    return derive_seed(0, "nb201 search", run)


@dataclass(frozen=True)
class Run:
    """One search.

    Args:
        chosen: (trials,) row of the incumbent after each trial.
        spent: (trials,) simulated seconds up to and with it.
        scored: architectures scored untrained.
        scoring: simulated seconds of that.
        processor: seconds of this process.
    """

    chosen: np.ndarray[Any, np.dtype[np.int64]]
    spent: Floats
    scored: int
    scoring: float
    processor: float


def curve(runs: Sequence[Run], axis: str, at: np.ndarray[Any, Any], accuracy: Floats) -> Floats:
    """Mean and quartiles of an accuracy of the incumbent, (points, 3); NaN until every run has one."""
    values = np.full((len(runs), len(at)), np.nan)
    for number, run in enumerate(runs):
        marks = np.arange(1, len(run.chosen) + 1) if axis == "evaluations" else run.spent
        place = np.searchsorted(marks, at, side="right") - 1
        values[number] = np.where(place < 0, np.nan, accuracy[run.chosen[place]])
    known = ~np.isnan(values).any(axis=0)
    summary = np.full((len(at), 3), np.nan)
    summary[known, 0] = values[:, known].mean(axis=0)
    summary[known, 1:] = np.quantile(values[:, known], (0.25, 0.75), axis=0).T
    return summary


def random_search_means(seen: Floats, wanted: Floats, n: int) -> Floats:
    """Exact mean of what random search with ``n`` trainings chooses, (columns,).

    Args:
        seen: (cells,) what it goes by.
        wanted: (cells, columns) what is looked up.
        n: draws with replacement.
    """
    place = np.arange(len(seen) + 1) / len(seen)
    chances: Floats = np.diff(place**n)  # of the i-th worst to be the best that is drawn
    return chances @ wanted[np.argsort(seen)]


def in_workers(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each job with its result, as they come; progress on stderr."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    with worker_pool(workers) as pool:
        if pool is None:
            results = ((job, function(*job)) for job in jobs)
        else:
            waiting = {pool.submit(function, *job): job for job in jobs}
            results = ((waiting[future], future.result()) for future in as_completed(waiting))
        for number, found in enumerate(results, start=1):
            print(f"{number}/{len(jobs)} {time.perf_counter() - start:.0f} s", *found[0], file=sys.stderr, flush=True)
            yield found


def took(start: float, workers: int) -> str:
    """Wall clock since ``start`` and processor time of this process and those that have ended, in words."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    processor = sum(usage.ru_utime + usage.ru_stime for usage in (own, others))
    return f"{time.perf_counter() - start:.0f} s by the clock, {processor:.0f} s of processors, {workers} workers"


def chunks(runs: int, size: int) -> list[tuple[int, int]]:
    """First and last + 1 of each chunk of runs."""
    return [(first, min(first + size, runs)) for first in range(0, runs, size)]
