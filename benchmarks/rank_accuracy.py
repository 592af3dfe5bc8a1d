"""Kendall's tau of the score with 200-epoch test accuracy on NAS-Bench-201, faithful and pruned, with baselines.

Published (FreeREA column, batch 64): .598 / .615 / .588 over finite rows, .608 / .624 / .598 with -inf ranked worst.
Run: NASWOT_DATA=... python benchmarks/rank_accuracy.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import DATASETS, cifar10, draw, nb201_table, write
from scipy.stats import kendalltau

import naswot
from naswot.evaluate import Evaluator
from naswot.run import screen
from naswot.workers import available_cores, worker_pool

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
    n = parser.parse_args().n
    table = nb201_table("nb201_accuracy.parquet")
    chosen = table.iloc[draw(n, len(table), seed=1)]
    space = naswot.get_space("nasbench201")
    rows = []
    for pruned in (False, True):
        evaluator = Evaluator(space, cifar10(), PROXIES, batch_size=64, pruned=pruned)
        start = time.perf_counter()
        with worker_pool(available_cores()) as executor:
            scored = {row.genotype: row for row in screen(evaluator, list(chosen["genotype"]), executor=executor)}
        seconds = time.perf_counter() - start
        networks = len({evaluator.scored(g) for g in chosen["genotype"]})
        for proxy in PROXIES:
            score = np.array([scored[g].mean[proxy] for g in chosen["genotype"]])
            row = {"network": "pruned" if pruned else "as published", "proxy": proxy}
            row |= {"networks_scored": networks, "seconds": round(seconds, 1), "finite": int(np.isfinite(score).sum())}
            for name, prefix in DATASETS.items():
                accuracy = chosen[f"{prefix}_test_e200_mean"].to_numpy()
                finite = np.isfinite(score)
                row[f"{name} tau finite"] = round(float(kendalltau(score[finite], accuracy[finite]).statistic), 4)
                tau, low, high = tau_with_interval(score, accuracy)
                row |= {f"{name} tau": round(tau, 4), f"{name} low": round(low, 4), f"{name} high": round(high, 4)}
            rows.append(row)
    write(
        "rank_accuracy",
        rows,
        cells=n,
        batch="64 CIFAR-10 training images, one initialisation, seed 0",
        accuracy="test accuracy after 200 epochs, mean over available seeds",
        ties="tau-b; `tau` ranks -inf worst (tied among themselves), `tau finite` leaves it out; 95 % bootstrap",
    )


if __name__ == "__main__":
    main()
