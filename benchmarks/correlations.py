"""Kendall's tau of some proxies with trained results on every benchmark at hand, with intervals.

Scores are taken once (one initialisation, one batch) and kept, so that the run goes on after an interruption and may
stop early: each row tells on how many architectures it rests, always the first of one random order. Networks are of
the published width and depth; batch and images are those that the row tells. Run:
NASWOT_DATA=... python benchmarks/correlations.py --store FOLDER [--minutes M] [--only nasbench201,nds_darts]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import data_root, write

from naswot.benchmark import Benchmark, get_benchmark
from naswot.correlating import agreement_of_trainings, datasets_with, orientation, sample_of, scores_of, tabulate
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.store import ResultStore
from naswot.workers import available_cores, worker_pool

PROXIES = ("naswot", "synflow", "jacov", "params", "flops", "trainable_layers")


@dataclass(frozen=True)
class Task:
    """A benchmark and how its networks are scored."""

    benchmark: str
    n: int = 500
    batch_size: int = 32
    metric: str = "test_accuracy"
    images: Mapping[str, Any] = field(default_factory=lambda: {"data": "cifar10"})
    build: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""


LARGE = {"data": "cifar10", "size": 112}  # half of the resolution at which the networks for ImageNet were trained
IMAGENET = {"images": LARGE, "build": {"stem": "imagenet"}}
TASKS = (
    Task("nasbench201_digits", 1000, 64),
    Task("nasbench201", 500),
    *(Task(f"nds_{family}_in", 200, 8, **IMAGENET) for family in ("darts", "enas", "nasnet", "pnas", "amoeba")),
    *(Task(f"nds_{family}_in", 200, 8, **IMAGENET) for family in ("resnext_a", "resnext_b")),
    Task("nasbench_macro", 300),
    Task("transnasbench101_micro", 300, 16, "best", {"data": "cifar10", "size": 64}),
    Task("nasbench101", 200, 16, file="nasbench101/nb101_all_accuracy_params.parquet"),
    *(Task(f"nds_{name}_in", 120, 8, **IMAGENET) for name in ("resnet_lr_wd", "vanilla_lr_wd", "darts_fix_w_d")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="folder that keeps the scores")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop a benchmark after that long")
    parser.add_argument("--only", help="which to score; all known are told")
    given = parser.parse_args()
    Path(given.store).mkdir(parents=True, exist_ok=True)
    rows = []
    for task in TASKS:
        wanted = given.only is None or task.benchmark in given.only.split(",")
        if not wanted and not (Path(given.store) / f"{task.benchmark}.sqlite").exists():
            continue
        rows += rows_of(task, Path(given.store) / f"{task.benchmark}.sqlite", given.minutes if wanted else 0.0)
    write(
        "correlations",
        rows,
        protocol="random architectures, published width and depth, one initialisation and one batch, seed 0",
        ties="tau-b; undefined scores (-inf) rank last; analytic 95 % intervals",
        over_size="tau minus that of the strongest of params, flops, trainable_layers; p after Holm's correction",
        ceiling="tau between the results of two trainings, where the benchmark tells them apart",
    )


def rows_of(task: Task, path: Path, minutes: float) -> list[dict[str, Any]]:
    """All rows of a benchmark on the architectures whose scores are known, or can be had in that time."""
    benchmark = get_benchmark(task.benchmark, data_root() / task.file)
    source = dict(benchmark.images) or dict(task.images)
    images = get_data(source.pop("data"), root=data_root(), **source)
    build = {"n_classes": images.n_classes, "in_channels": images.shape[0], **benchmark.build, **task.build}
    evaluator = Evaluator(benchmark.space, images, PROXIES, batch_size=task.batch_size, build=build)
    sample = sample_of(benchmark, min(task.n, len(benchmark)))
    with ResultStore(path, options=evaluator.describe()) as store, worker_pool(available_cores()) as executor:
        start = time.monotonic()
        for chunk in chunks([g for g in sample if store.get(benchmark.space.format(g), 0) is None]):
            if time.monotonic() - start >= 60 * minutes:
                break
            for _ in evaluator.map(chunk, executor=executor, store=store):
                pass
        known = [g for g in sample if store.get(benchmark.space.format(g), 0) is not None]
        if len(known) < 30:
            return []
        scores = scores_of(evaluator, known, store=store)
    about = f"{images.name} {images.shape[1]} x {images.shape[2]}"
    return list(told(task, benchmark, known, scores.values, about))


def chunks(genotypes: Sequence[Any], size: int = 16) -> Iterator[Sequence[Any]]:
    for first in range(0, len(genotypes), size):
        yield genotypes[first : first + size]


def told(
    task: Task, benchmark: Benchmark, known: Sequence[Any], scores: Mapping[str, Any], images: str
) -> Iterator[dict[str, Any]]:
    """Rows of the table, data set by data set."""
    places = {genotype: place for place, genotype in enumerate(benchmark.genotypes())}
    chosen = [places[genotype] for genotype in known]
    for dataset in datasets_with(benchmark, task.metric):
        truth = orientation(task.metric) * benchmark.column(dataset, task.metric)[chosen]
        ceiling = agreement_of_trainings(benchmark, dataset, task.metric, None, chosen)
        for row in tabulate(dataset, scores, truth):
            over = row.over.difference if row.over else None
            yield {
                "benchmark": task.benchmark,
                "dataset": dataset,
                "metric": task.metric,
                "proxy": row.proxy,
                "n": row.tau.n,
                "undefined": row.undefined,
                "tau": round(row.tau.value, 4),
                "low": round(row.tau.low, 4),
                "high": round(row.tau.high, 4),
                "tau_top_10": "" if np.isnan(row.top[0.1]) else round(row.top[0.1], 4),
                "over_size": "" if over is None else round(over.value, 4),
                "p_value": "" if row.p_value is None else f"{row.p_value:.2g}",
                "ceiling": "" if np.isnan(ceiling) else round(ceiling, 4),
                "images": images,
                "batch": task.batch_size,
            }


if __name__ == "__main__":
    main()
