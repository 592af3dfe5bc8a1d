"""What the options for speed change: the score, its rank, its agreement with accuracy, and the time.

Channels-last; channels-last with bfloat16 (`fast=True`); leaving the pass behind the last activation (`stop_after`).
CPU time on one thread, paired with the default in one process. Run: NASWOT_DATA=... python benchmarks/fast_options.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from common import cifar10, draw, nb201_table, write
from scipy.stats import kendalltau

import naswot
from naswot.evaluate import Evaluator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100)
    n = parser.parse_args().n
    torch.set_num_threads(1)
    table = nb201_table("nb201_accuracy.parquet")
    chosen = table.iloc[draw(n, len(table), seed=2)]
    accuracy = chosen["c10_test_e200_mean"].to_numpy()
    evaluator = Evaluator(naswot.get_space("nasbench201"), cifar10(), ("naswot",), batch_size=128)
    batch = evaluator.batch(0)
    scores: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for genotype in chosen["genotype"]:
        model = evaluator.model(genotype)
        with naswot.Passes(model, batch) as passes:
            passes.observe([naswot.scoring.AGREEMENT])
            last = passes.n_calls
        variants = {
            "default": {},
            "channels_last": {"channels_last": True},
            "fast": {"fast": True},
            "stop_after": {"stop_after": last},
        }
        seconds = {}
        for name, options in variants.items():
            start = time.process_time()
            scores.setdefault(name, []).append(naswot.score(model, batch, **options))
            seconds[name] = time.process_time() - start
        for name, spent in seconds.items():
            ratios.setdefault(name, []).append(spent / seconds["default"])
    rows = [
        row_of(name, np.array(s), np.array(scores["default"]), accuracy, ratios[name]) for name, s in scores.items()
    ]
    write(
        "fast_options", rows, cells=n, batch="128 CIFAR-10 training images", threads=1, ties="tau-b, -inf ranked worst"
    )


def row_of(name: str, score: np.ndarray, default: np.ndarray, accuracy: np.ndarray, ratios: list[float]) -> dict:
    """Difference from the default in nats and in rank, tau with accuracy, median time relative to the default."""
    finite = np.isfinite(score) & np.isfinite(default)
    difference = np.abs(score[finite] - default[finite])
    return {
        "option": name,
        "mean_difference_nats": round(float(difference.mean()), 6),
        "largest_difference_nats": round(float(difference.max()), 6),
        "same_singular": bool((np.isfinite(score) == np.isfinite(default)).all()),
        "tau_with_default": round(float(kendalltau(score, default).statistic), 5),
        "tau_with_accuracy": round(float(kendalltau(score, accuracy).statistic), 4),
        "median_time": round(statistics.median(ratios), 3),
    }


if __name__ == "__main__":
    main()
