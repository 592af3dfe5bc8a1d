"""Agreement with the published NASWOT scores of NAS-Bench-201, by value and by rank.

Published column: log-determinant, batch of 64 real CIFAR-10 images, mean of 3 initialisations (FreeREA, WACV 2023).
Run: NASWOT_DATA=... python benchmarks/published_scores.py
"""

from __future__ import annotations

import argparse

import numpy as np
from common import cifar10, draw, nb201_table, write
from scipy.stats import spearmanr

import naswot
from naswot.evaluate import Evaluator
from naswot.run import screen
from naswot.workers import available_cores, worker_pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500)
    n = parser.parse_args().n
    table = nb201_table("nb201_zero_cost_scores.parquet")
    chosen = table.iloc[draw(n, len(table))]
    published = dict(zip(chosen["genotype"], chosen["c10_naswot_freerea"], strict=True))
    evaluator = Evaluator(naswot.get_space("nasbench201"), cifar10(), ("naswot",), batch_size=64, seed=0)
    with worker_pool(available_cores()) as executor:
        rows = screen(evaluator, list(published), repeats=3, executor=executor)
    ours = np.array([row.mean["naswot"] for row in rows])
    theirs = np.array([published[row.genotype] for row in rows])
    finite = np.isfinite(ours) & np.isfinite(theirs)
    result = {
        "cells": n,
        "finite": int(finite.sum()),
        "singular_ours": int((~np.isfinite(ours)).sum()),
        "singular_published": int((~np.isfinite(theirs)).sum()),
        "singular_agree": bool((np.isfinite(ours) == np.isfinite(theirs)).all()),
        "spearman_finite": round(float(spearmanr(ours[finite], theirs[finite]).statistic), 4),
        "mean_absolute_difference_nats": round(float(np.abs(ours[finite] - theirs[finite]).mean()), 3),
        "mean_difference_nats": round(float((ours[finite] - theirs[finite]).mean()), 3),
        "spread_between_initialisations_nats": round(float(np.mean([r.spread["naswot"] or 0.0 for r in rows])), 3),
    }
    write("published_scores", [result], batch="64 CIFAR-10 training images", repeats=3, seed=0)


if __name__ == "__main__":
    main()
