"""Kendall's tau of the score with 200-epoch test accuracy on NAS-Bench-201, faithful and pruned, with baselines.

Published (FreeREA column, batch 64): .598 / .615 / .588 over finite rows, .608 / .624 / .598 with -inf ranked worst.
Run: NASWOT_DATA=... python benchmarks/rank_accuracy.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import DATASETS, cifar10, nb201_table, write
from scipy.stats import kendalltau

import naswot
from naswot.evaluate import Evaluator
from naswot.options import PassOptions, fast_options
from naswot.run import Ranked, sample_distinct, screen
from naswot.space import SearchSpace
from naswot.store import ResultStore
from naswot.types import Genotype
from naswot.workers import available_cores, worker_pool

if TYPE_CHECKING:
    import pandas as pd

PROXIES = ("naswot", "naswot_size", "naswot_diversity", "params", "flops", "trainable_layers")


def tau_with_interval(x: np.ndarray, y: np.ndarray, resamples: int = 1000) -> tuple[float, float, float]:
    """Tau-b with its 95 % percentile bootstrap interval over architectures."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(len(x), size=len(x)) for _ in range(resamples))
    taus = [kendalltau(x[i], y[i]).statistic for i in picks]
    low, high = np.percentile(taus, [2.5, 97.5])
    return float(kendalltau(x, y).statistic), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument(
        "--store", help="run folder of `naswot search -n N --data cifar10 --batch-size 128`, with --fast if given here"
    )
    parser.add_argument("--fast", action="store_true", help="channels-last, and bfloat16 where the processor has it")
    parser.add_argument("--pruned-n", type=int, default=300, help="score that many of them pruned as well")
    given = parser.parse_args()
    space = naswot.get_space("nasbench201")
    cells = sample_distinct(space, given.n, seed=0)
    table = nb201_table("nb201_accuracy.parquet")
    position = {genotype: row for row, genotype in enumerate(table["genotype"])}
    rows = []
    known: dict[bool, dict[Genotype, Ranked]] = {}
    for pruned, chosen in ((False, cells), (False, cells[: given.pruned_n]), (True, cells[: given.pruned_n])):
        if pruned not in known:
            known[pruned] = scored(space, chosen, pruned, given.fast, None if pruned else given.store)
        networks = {space.representative(g) if pruned else g: g for g in chosen}  # what is scored -> one it stands for
        seconds = sum(known[pruned][g].seconds for g in networks.values())
        accuracy = table.iloc[[position[g] for g in chosen]]
        for proxy in PROXIES:
            score = np.array([known[pruned][g].mean[proxy] for g in chosen])
            row = {"network": "pruned" if pruned else "as published", "proxy": proxy, "cells": len(chosen)}
            row |= {"networks_scored": len(networks), "worker_seconds": round(seconds, 1)}
            rows.append(row | {"finite": int(np.isfinite(score).sum())} | agreement(score, accuracy))
    write(
        "rank_accuracy",
        rows,
        batch="128 CIFAR-10 training images, one initialisation, seed 0",
        accuracy="test accuracy after 200 epochs, mean over available seeds",
        ties="tau-b; `tau` ranks -inf worst (tied among themselves), `tau finite` leaves it out; 95 % bootstrap",
    )


def scored(
    space: SearchSpace, chosen: list[Genotype], pruned: bool, fast: bool, folder: str | None
) -> dict[Genotype, Ranked]:
    """Scores of the cells, from the store of a run folder where they are known."""
    build = {"n_classes": 10, "in_channels": 3}
    options = PassOptions(**(fast_options("cpu") if fast else {}))
    evaluator = Evaluator(space, cifar10(), PROXIES, batch_size=128, pruned=pruned, build=build, options=options)
    path = Path(folder or tempfile.mkdtemp()) / "results.sqlite"
    with ResultStore(path, options=evaluator.describe()) as store, worker_pool(available_cores()) as executor:
        return {row.genotype: row for row in screen(evaluator, chosen, executor=executor, store=store)}


def agreement(score: np.ndarray, table: pd.DataFrame) -> dict[str, float]:
    """Tau with each data set's accuracy: over finite rows, and with -inf ranked worst with its interval."""
    row = {}
    finite = np.isfinite(score)
    for name, prefix in DATASETS.items():
        accuracy = table[f"{prefix}_test_e200_mean"].to_numpy()
        row[f"{name} tau finite"] = round(float(kendalltau(score[finite], accuracy[finite]).statistic), 4)
        tau, low, high = tau_with_interval(score, accuracy)
        row |= {f"{name} tau": round(tau, 4), f"{name} low": round(low, 4), f"{name} high": round(high, 4)}
    return row


if __name__ == "__main__":
    main()
