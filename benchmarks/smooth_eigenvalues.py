"""Do SDARTS-RS and SDARTS-ADV end in flatter places than DARTS? RobustDARTS S2 and S4 on digits, paired seeds.

For each space and seed the three methods search from the same initialisation and batches; at the end the largest
eigenvalue of the Hessian of the validation loss with respect to all architecture parameters on the same fixed batch,
the accuracy of the supernet, and that with the alphas projected to the cell (same weights, no training). Differences
to DARTS with 95 % intervals by Student's t over the seeds. The gap is taken twice: with the running statistics that
the mixture has gathered, as DARTS validates, and with those of each batch: the first runs showed that the former do
not fit a single architecture, so that they hide what is asked for. 3 cells of width 6, 10 epochs of 11 batches of 64;
the alphas learn at 1e-2 as the run is some 200 times shorter than the paper's.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import write
from scipy.stats import t as student

from naswot.data import get_data
from naswot.data.images import ImageSet
from naswot.differentiable.monitors import AccuracyMonitor, HessianMonitor, ProjectionMonitor, ShapeMonitor
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.searching import SupernetResult, run_supernet_search
from naswot.preserve import preserve, set_mode
from naswot.supernet import Mixing
from naswot.training.splits import LabelledImages, three_way_split

METHODS = ("darts", "sdarts_rs", "sdarts_adv")
MEASURES = ("eigenvalue", "discretisation_gap", "batch_statistics_gap", "valid_accuracy", "projected_accuracy")
BUILD = {"width": 6, "n_cells": 3}
RATE = 1e-2


def search(space: str, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """What one search ends with."""
    torch.set_num_threads(1)
    parts = three_way_split(get_data("digits"), valid_fraction=0.5, seed=seed)
    plan = get_plan(method).lasting(epochs)
    plan = replace(plan, alphas=replace(plan.alphas, learning_rate=RATE))
    last = {"every": epochs}
    monitors = (AccuracyMonitor(**last), ProjectionMonitor(**last), HessianMonitor(**last), ShapeMonitor(**last))
    result = run_supernet_search(space, *parts, plan, seed=seed, build=BUILD, monitors=monitors)
    row = {**result.history[-1], "batch_statistics_gap": batch_statistics_gap(result, parts[1])}
    found = {"space": space, "method": method, "seed": seed} | {name: round(row[name], 5) for name in MEASURES}
    found |= {"skips": row["n_skips_normal"], "seconds": round(result.seconds, 1), "arch": result.arch}
    print(found, flush=True)
    return found


def batch_statistics_gap(result: SupernetResult, valid: ImageSet) -> float:
    """What the mixture has above its architecture, percentage points, both normalised by the batch."""
    supernet, images = result.supernet, LabelledImages(valid, "cpu")
    accuracies = []
    for mixing in (Mixing(Softmax().expected(supernet)), supernet.mixing_of(result.genotype)):
        with preserve(supernet), torch.no_grad():
            set_mode(supernet, "train")
            hits = [int((supernet(x, mixing).argmax(1) == y).sum()) for x, y in images.batches(64)]
        accuracies.append(100.0 * sum(hits) / len(valid))
    return accuracies[0] - accuracies[1]


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean paired differences to DARTS with their intervals."""
    found = []
    for space in dict.fromkeys(row["space"] for row in rows):
        for method in METHODS[1:]:
            for measure in MEASURES[:3]:
                ours, theirs = (
                    [r[measure] for r in rows if (r["space"], r["method"]) == (space, name)]
                    for name in (method, "darts")
                )
                d = np.subtract(ours, theirs)
                half = student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
                line = {"space": space, "method": f"{method} - darts", "seed": f"{len(d)} pairs", "measure": measure}
                found.append(
                    line
                    | {"mean": round(d.mean(), 5), "low": round(d.mean() - half, 5), "high": round(d.mean() + half, 5)}
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spaces", nargs="+", default=["robustdarts_s2", "robustdarts_s4"])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    seeds = range(given.seeds)
    jobs = [(space, method, seed, given.epochs) for space in given.spaces for seed in seeds for method in METHODS]
    with ProcessPoolExecutor(given.workers) as pool:
        rows = list(pool.map(search, *zip(*jobs, strict=True)))
    rows += differences(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    blank = dict.fromkeys(names, "")
    write("smooth_eigenvalues", [{**blank, **row} for row in rows], epochs=given.epochs, build=BUILD, alpha_rate=RATE)


if __name__ == "__main__":
    main()
