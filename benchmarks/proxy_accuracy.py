"""Kendall's tau of every proxy with trained accuracy on random NAS-Bench-201 cells, and tau against cost.

Scores are taken once (one initialisation, one batch) in groups: what shares passes, what has passes of its own, and
what takes longest; the last two on smaller batches and with fewer repeats than the defaults, as the table tells. Each
group keeps a store, so that the run goes on after an interruption and may stop early: a proxy's row tells on how many
cells it rests, always the first of the same 1,000. Run:
NASWOT_DATA=... python benchmarks/proxy_accuracy.py --store FOLDER [--groups shared,own,thin,slow] [--minutes M]
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import DATASETS, RESULTS, VISION, cifar10, label, nb201_table, reduced, write
from rank_accuracy import tau_with_interval
from scipy.stats import kendalltau

import naswot
from naswot.evaluate import Evaluator
from naswot.plots import new_figure
from naswot.run import sample_distinct
from naswot.store import ResultStore
from naswot.types import Genotype
from naswot.workers import available_cores, worker_pool

BATCH_SIZES = {"shared": 64, "own": 16, "thin": 16, "slow": 16}
THIN = {"width": 1, "n_cells": 1}  # linear regions are counted on narrow copies, as their authors do
SLOW = ("dextr", "grasp", "gradsign", "ntk_condition", "vkdnw", "vkdnw_entropy")
Scores = dict[Genotype, dict[str, float]]


def group_of(name: str) -> str:
    """Which run a proxy belongs to, by the passes that it needs."""
    cost = naswot.get_proxy(name).cost
    if name == "linear_regions":
        return "thin"
    if name in SLOW or "N " in cost:
        return "slow"
    return "own" if "own" in cost or "parts" in cost else "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--store", required=True, help="folder that keeps the scores")
    parser.add_argument("--groups", default=",".join(BATCH_SIZES), help="which to score; all known are told")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop a group after that long")
    given = parser.parse_args()
    space = naswot.get_space("nasbench201")
    cells = sample_distinct(space, given.n, seed=0)
    Path(given.store).mkdir(parents=True, exist_ok=True)
    rows = []
    table = nb201_table("nb201_accuracy.parquet").set_index("genotype")
    for group, size in BATCH_SIZES.items():
        names = tuple(name for name in VISION if group_of(name) == group)
        build = THIN if group == "thin" else {}
        evaluator = Evaluator(space, cifar10(), [reduced(name) for name in names], batch_size=size, build=build)
        minutes = given.minutes if group in given.groups.split(",") else 0.0
        found = scored(evaluator, cells, Path(given.store) / f"{group}.sqlite", minutes)
        if len(found) >= 20:
            rows += [row_of(name, size, found, table) for name in names]
    rows.sort(key=lambda row: -row["CIFAR-10 tau"])
    write(
        "proxy_accuracy",
        rows,
        batch="CIFAR-10 training images, as many as `images` tells; one initialisation, seed 0",
        accuracy="test accuracy after 200 epochs, mean over available seeds",
        ties="tau-b on the oriented score, undefined scores ranked worst; 95 % bootstrap over cells",
    )
    plot(rows)


def scored(evaluator: Evaluator, cells: Sequence[Genotype], path: Path, minutes: float) -> Scores:
    """Oriented scores of the cells that are known, or can be had in that time."""
    directions = {name: 1.0 if naswot.get_proxy(name).higher_is_better else -1.0 for name in evaluator.names}
    found: Scores = {}
    with ResultStore(path, options=evaluator.describe()) as store, worker_pool(available_cores()) as executor:
        start = time.monotonic()
        known = {g: store.get(evaluator.space.format(g), evaluator.seed) for g in cells}
        missing = [g for g, e in known.items() if e is None or not set(evaluator.names) <= set(e.scores)]
        for first in range(0, len(missing), 24):
            if time.monotonic() - start >= 60 * minutes:
                break
            for done in evaluator.map(missing[first : first + 24], executor=executor, store=store):
                known[done.genotype] = done
    for genotype, evaluation in known.items():
        if evaluation is not None and set(evaluator.names) <= set(evaluation.scores):
            found[genotype] = {name: directions[name] * evaluation.scores[name] for name in evaluator.names}
    return found


def row_of(name: str, size: int, found: Scores, table: object) -> dict[str, object]:
    """Tau with each data set's accuracy, with its interval, and the cost where it was measured."""
    chosen = table.loc[list(found)]
    score = np.array([found[genotype][name] for genotype in found])
    row: dict[str, object] = {
        "proxy": f"{name} (thin network)" if group_of(name) == "thin" else label(name),
        "images": size,
        "cells": len(found),
    }
    row |= {"defined": int(np.isfinite(score).sum()), "cost_forwards": costs().get(label(name), "")}
    for title, prefix in DATASETS.items():
        accuracy = chosen[f"{prefix}_test_e200_mean"].to_numpy()
        if np.ptp(score[np.isfinite(score)]) == 0:
            row |= {f"{title} tau": 0.0, f"{title} low": 0.0, f"{title} high": 0.0}
            continue
        tau, low, high = tau_with_interval(score, accuracy)
        top = accuracy >= np.quantile(accuracy, 0.9)
        row |= {f"{title} tau": round(tau, 4), f"{title} low": round(low, 4), f"{title} high": round(high, 4)}
        row[f"{title} tau top 10 %"] = round(float(kendalltau(score[top], accuracy[top]).statistic), 4)
    return row


def costs() -> dict[str, float]:
    """Median cost in forward passes, from results/proxy_cost.csv."""
    path = RESULTS / "proxy_cost.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["what"]: float(row["median"]) for row in csv.DictReader(line for line in file if line[0] != "#")}


def plot(rows: Sequence[dict[str, object]]) -> None:
    """Tau on CIFAR-10 with its interval against cost, where both are known."""
    points = [row for row in rows if row["cost_forwards"] != ""]
    figure = new_figure(8, 5.5)
    axes = figure.add_subplot()
    for row in points:
        x, y = max(float(row["cost_forwards"]), 1e-3), float(row["CIFAR-10 tau"])
        spread = [[y - float(row["CIFAR-10 low"])], [float(row["CIFAR-10 high"]) - y]]
        axes.errorbar([x], [y], yerr=spread, fmt="o", markersize=4, capsize=2, alpha=0.8)
        axes.annotate(str(row["proxy"]), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("cost alone, in plain forward passes (batch 64)")
    axes.set_ylabel("Kendall's tau with test accuracy, CIFAR-10")
    axes.grid(alpha=0.25)
    figure.savefig(RESULTS / "proxy_accuracy.png", dpi=150)


if __name__ == "__main__":
    main()
