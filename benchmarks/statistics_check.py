"""Seconds of the statistics on 100,000 pairs, and how often the intervals of tau hold the truth.

Pairs are normal with the correlation sin(pi tau / 2), so that the population's tau is known; "ties" rounds both sides
to few values, where the truth is the tau-b of 200,000 pairs. Run: python benchmarks/statistics_check.py
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import write

from naswot.statistics import bootstrap, kendall, kendall_interval, partial_kendall, spearman, weighted_kendall

LARGE = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    rows = [speed(name, function) for name, function in SPEED.items()]
    for n in (20, 50, 200, 1000):
        rows += [coverage(n, tau, ties, given.samples) for tau in (0.0, 0.5, 0.8) for ties in (False, True)]
    rows.append(coverage(50, 0.5, False, given.samples // 10, interval=percentile, name="bootstrap(kendall)"))
    write("statistics_check", rows, pairs="speed: independent normal pairs, least of three runs, processor seconds")


SPEED: dict[str, Callable[..., Any]] = {
    "kendall": kendall,
    "kendall_interval": kendall_interval,
    "spearman": spearman,
    "weighted_kendall": weighted_kendall,
    "partial_kendall": lambda x, y: partial_kendall(x, y, x + y),
}


def speed(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, LARGE))
    times = []
    for _ in range(3):
        start = time.process_time()
        function(x, y)
        times.append(time.process_time() - start)
    return {"what": f"{name}: seconds", "n": LARGE, "tau": "", "ties": "", "value": round(min(times), 3), "samples": 3}


def pairs(n: int, tau: float, ties: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    r = math.sin(math.pi * tau / 2)
    x, noise = rng.normal(size=(2, n))
    y = r * x + math.sqrt(1 - r * r) * noise
    return (np.round(2 * x), np.round(2 * y)) if ties else (x, y)


def percentile(x: np.ndarray, y: np.ndarray) -> Any:
    return bootstrap(kendall, x, y, resamples=400)


def coverage(
    n: int, tau: float, ties: bool, samples: int, interval: Callable[..., Any] = kendall_interval, name: str = ""
) -> dict[str, Any]:
    """Share of samples whose nominal 95 % interval holds the truth."""
    truth = kendall(*pairs(200_000, tau, True, np.random.default_rng(1))) if ties else tau
    hits = []
    for sample in range(samples):
        found = interval(*pairs(n, tau, ties, np.random.default_rng([n, sample])))
        hits.append(found.low <= truth <= found.high)
    what = f"{name or 'kendall_interval'}: coverage"
    return {"what": what, "n": n, "tau": tau, "ties": ties, "value": round(float(np.mean(hits)), 3), "samples": samples}


if __name__ == "__main__":
    main()
