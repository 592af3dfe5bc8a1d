"""What CALM costs beside NASWOT and a plain forward pass: results/calm_cost.csv; ratios within one run, one thread.

Run: NASWOT_DATA=... python benchmarks/calm_cost.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from common import cifar10, spread_cells, write

import naswot
from naswot.evaluate import fresh_model
from naswot.seeding import torch_generator
from naswot.types import Batch, Genotype

CELLS, ROUNDS = 8, 3


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for n in (64, 128):
        batch = cifar10().batch(n, generator=torch_generator(0))
        naswot_ratio, calm_ratio = np.median([ratios(genotype, batch) for genotype in spread_cells(CELLS)], axis=0)
        rows.append({"batch": n, "naswot": round(naswot_ratio, 2), "calm": round(calm_ratio, 2)})
    write("calm_cost", rows, unit="plain forward passes (no graph), median of cells", cells=CELLS)


def ratios(genotype: Genotype, batch: Batch) -> tuple[float, float]:
    """Seconds of both scores over those of a plain forward pass."""
    model = fresh_model(naswot.get_space("nasbench201"), genotype, {"n_classes": 10}, seed=0)
    with torch.no_grad():
        forward = seconds(lambda: batch.call(model))
    scores = (
        seconds(lambda: naswot.measure(model, batch, "naswot")),
        seconds(lambda: naswot.measure(model, batch, "calm")),
    )
    return scores[0] / forward, scores[1] / forward


def seconds(run: Callable[[], object]) -> float:
    """Shortest of some runs."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    main()
