"""How often `naswot calibrate` gives which verdict where the truth is known, and whether its intervals hold it.

Ten scores, jointly normal with accuracy: one carries the planted tau and is independent of the others, six are noise
with correlations of 0.5, three are size, with correlations of 0.8. Planted in size, params carries it, and the
correlated flops and trainable_layers what follows from that. The combination's true tau is known from its weights.
Run: python benchmarks/calibrate_verdicts.py [-n 200]
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import numpy as np
from common import write

from naswot.calibrating import SIZE, Calibration, Verdict, calibrate
from naswot.statistics import Floats

NAMES = ("planted", *(f"noise_{i}" for i in range(6)), *SIZE)


def covariance(tau: float, place: str) -> Floats:
    """Of the ten scores and accuracy, (11, 11), all of variance 1."""
    matrix = np.eye(11)
    for block, correlation in ((slice(1, 7), 0.5), (slice(7, 10), 0.8)):
        matrix[block, block] += correlation * (1 - np.eye(block.stop - block.start))
    carried = np.sin(np.pi * tau / 2) * (np.eye(11)[0] if place == "a proxy" else matrix[7])
    matrix[10, :10] = matrix[:10, 10] = carried[:10]
    return matrix


def true_tau(result: Calibration, matrix: Floats) -> float:
    """Tau with accuracy in the population of the combination that was learned."""
    weights = np.array([result.combination.weights.get(name, 0.0) for name in NAMES])  # type: ignore[union-attr]
    spread = np.sqrt(weights @ matrix[:10, :10] @ weights)
    return float(2 / np.pi * np.arcsin(weights @ matrix[:10, 10] / spread)) if spread > 0 else 0.0


def row(n: int, tau: float, place: str, samples: int) -> dict[str, Any]:
    matrix = covariance(tau, place)
    factor = np.linalg.cholesky(matrix)
    rng = np.random.default_rng([n, round(10 * tau), len(place)])
    verdicts: Counter[Verdict] = Counter()
    right = covered = width = 0.0
    for sample in range(samples):
        drawn = rng.standard_normal((n, 11)) @ factor.T
        result = calibrate(NAMES, drawn[:, :10], drawn[:, 10], seed=sample)
        verdicts[result.verdict] += 1
        interval = result.combination.standing.tau  # type: ignore[union-attr]
        covered += interval.low <= true_tau(result, matrix) <= interval.high
        width += interval.high - interval.low
        right += result.use == ("planted" if place == "a proxy" else "params")
    rates = {verdict.value: verdicts[verdict] / samples for verdict in Verdict}
    helps = 1 - rates[Verdict.NONE.value] - rates[Verdict.TOO_FEW.value]
    shown = {"something helps": helps, "names the planted one": right / samples, **rates}
    interval_of = {"combination covered": covered / samples, "combination width": width / samples}
    return {"n": n, "tau": tau, "planted in": place, **{k: round(v, 3) for k, v in {**shown, **interval_of}.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="samples for each row")
    given = parser.parse_args()
    cases = [(tau, "a proxy") for tau in (0.0, 0.2, 0.4, 0.6)] + [(0.4, "size")]
    rows = [row(n, tau, place, given.n) for tau, place in cases for n in (20, 50, 100, 200)]
    write("calibrate_verdicts", rows, samples=given.n, scores=len(NAMES), useful=0.3, ties="none, normal variables")


if __name__ == "__main__":
    main()
