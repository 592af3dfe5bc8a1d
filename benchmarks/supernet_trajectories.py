"""What do the cells that a search by a supernet tells after each epoch really reach? NAS-Bench-201 on CIFAR-10 images.

Each method searches from each seed on images of 16 x 16, half of them for the weights and half for the architecture;
the cell that it tells after every epoch is looked up in the benchmark (test accuracy on CIFAR-10 after 200 epochs).
Below it stand the largest eigenvalue and the Frobenius norm of the Hessian with respect to the architecture, on one
fixed batch; for GDAS, which trains single paths, those of the softmax mixture of its alphas. The search is some 25
times shorter than the published ones (40 epochs of 31 steps instead of 50 of 390), so the alphas of all methods learn
at 10 times their published rate; batches are of 64 images for all, and where the published batch is another one the
learning rate of the weights goes with it. All this was fixed before the first run, and what happened is reported as
it is.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from common import RESULTS, data_root, write

from naswot.benchmark import get_benchmark
from naswot.data import get_data
from naswot.differentiable.monitors import HessianMonitor, ShapeMonitor
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import get_plan
from naswot.differentiable.searching import run_supernet_search
from naswot.training.splits import three_way_split

METHODS = {
    "darts": ("darts", {}),
    "darts_es": ("darts_es", {"order": 1}),
    "sdarts_rs": ("sdarts_rs", {}),
    "sdarts_adv": ("sdarts_adv", {}),
    "gdas": ("gdas", {}),
    "pc_darts": ("pc_darts", {}),
}
BATCH, IMAGES, SIZE, FASTER = 64, 4000, 16, 10.0
BUILD = {"width": 8, "n_cells": 1}


def plan_of(method: str, epochs: int) -> SearchPlan:
    """The published plan, shortened as told above."""
    name, options = METHODS[method]
    plan = get_plan(name, **options).lasting(epochs)
    scale = min(1.0, BATCH / plan.batch_size)
    weights = replace(
        plan.weights,
        learning_rate=plan.weights.learning_rate * scale,
        final_learning_rate=plan.weights.final_learning_rate * scale,
    )
    alphas = replace(plan.alphas, learning_rate=FASTER * plan.alphas.learning_rate)
    return replace(plan, batch_size=BATCH, weights=weights, alphas=alphas)


def search(method: str, seed: int, epochs: int) -> list[dict[str, Any]]:
    """Rows of one search, one for each epoch."""
    torch.set_num_threads(1)
    benchmark = get_benchmark("nasbench201", data_root())
    images = get_data("cifar10", root=data_root(), size=SIZE).subset(torch.arange(IMAGES))
    parts = three_way_split(images, valid_fraction=0.5, seed=seed)
    monitors = (HessianMonitor(single_paths=True), ShapeMonitor())
    result = run_supernet_search(
        "nasbench201", *parts, plan_of(method, epochs), seed=seed, build=BUILD, monitors=monitors, flip=True
    )
    rows = []
    for told in result.history:
        genotype = benchmark.space.parse(told["arch"])
        accuracy = benchmark.query(genotype, dataset="cifar10", metric="test_accuracy")
        numbers = {name: round(told[name], 5) for name in ("train_loss", "eigenvalue", "frobenius_norm", "entropy")}
        rows.append(
            {
                "method": method,
                "seed": seed,
                "epoch": told["epoch"],
                "true_accuracy": round(accuracy, 3),
                "skips": genotype.count(1),
                **numbers,
                "returned": int(told["epoch"] == result.epoch),
                "arch": told["arch"],
            }
        )
    print(method, seed, result.stopped, rows[-1]["true_accuracy"], round(result.seconds), flush=True)
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Accuracy above, Hessian norm below: mean over the seeds as a line, each seed as a thin one."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(METHODS), figsize=(3.2 * len(METHODS), 6), sharex=True, sharey="row")
    for column, method in enumerate(METHODS):
        mine = [row for row in rows if row["method"] == method]
        for line, name in enumerate(("true_accuracy", "frobenius_norm")):
            axis = axes[line, column]
            for seed in sorted({row["seed"] for row in mine}):
                one = [row for row in mine if row["seed"] == seed]
                axis.plot([r["epoch"] for r in one], [r[name] for r in one], linewidth=1.2, label=f"seed {seed}")
                if line == 0:
                    end = [r for r in one if r["returned"]][-1:]
                    axis.plot([r["epoch"] for r in end], [r[name] for r in end], "ko", markersize=4)
        axes[0, column].set_title(method)
        axes[0, column].axhline(54.30, color="grey", linestyle=":", linewidth=1)
        axes[1, column].set_yscale("log")
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel("true accuracy of the cell, %\n(dotted: the all-skip cell)")
    axes[1, 0].set_ylabel("Frobenius norm of the Hessian")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "supernet_trajectories.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    jobs = [(method, seed, given.epochs) for seed in range(given.seeds) for method in given.methods]
    with ProcessPoolExecutor(given.workers) as pool:
        rows = [row for found in pool.map(search, *zip(*jobs, strict=True)) for row in found]
    rows.sort(key=lambda row: (list(METHODS).index(row["method"]), row["seed"]))
    about = {"images": IMAGES, "size": SIZE, "batch": BATCH, "alphas": f"rate x {FASTER:g}", "build": BUILD}
    write("supernet_trajectories", rows, epochs=given.epochs, **about)
    draw(rows)


if __name__ == "__main__":
    main()
