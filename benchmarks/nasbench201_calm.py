"""CALM of all NAS-Bench-201 cells, each class of equal networks once, and what a search by it finds.

Writes results/nasbench201_calm.csv.gz (scores: 64 CIFAR-10 images, mean over repeats, pruned networks)
and results/nasbench201_calm.csv: Kendall's tau with all trained results, tau among the best tenth by truth, and 500
searches that draw 1,000 random cells and keep the best by a score: trained test accuracy, and CALM's paired gain on
NASWOT, parameters and SynFlow (published scores of all cells), with intervals. Run:
NASWOT_DATA=... python benchmarks/nasbench201_calm.py --store FOLDER [--fast]
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path
from typing import Any

import numpy as np
from common import DATASETS, RESULTS, cifar10, data_root, nb201_table, provenance, write
from numpy.typing import NDArray

import naswot
from naswot.benchmark import get_benchmark
from naswot.evaluate import Evaluator
from naswot.options import PassOptions, fast_options
from naswot.seeding import numpy_generator
from naswot.selection import tau_in_top
from naswot.statistics import kendall_interval
from naswot.store import ResultStore
from naswot.workers import available_cores, worker_pool

NAMES = ("calm", "code_evidence", "live_params", "live_units")
RUNS, DRAWN = 500, 1000
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="folder that keeps the scores")
    parser.add_argument("--repeats", type=int, default=2, help="batches and initialisations; the mean counts")
    parser.add_argument("--fast", action="store_true", help="channels-last, and bfloat16 where the processor has it")
    given = parser.parse_args()
    scores = scored(Path(given.store), repeats=given.repeats, fast=given.fast)
    keep(scores, repeats=given.repeats, fast=given.fast)
    table = nb201_table("nb201_zero_cost_scores.parquet")
    params = get_benchmark("nasbench201", data_root())
    by_row = {genotype: row for row, genotype in enumerate(params.genotypes())}
    rows = [by_row[genotype] for genotype in table["genotype"]]
    known = {
        "calm": np.array([scores[genotype]["calm"] for genotype in table["genotype"]]),
        "code_evidence": np.array([scores[genotype]["code_evidence"] for genotype in table["genotype"]]),
        "live_params": np.array([scores[genotype]["live_params"] for genotype in table["genotype"]]),
        "naswot": table["c10_naswot_freerea"].fillna(-np.inf).to_numpy(float),
        "synflow": table["c10_synflow_freerea"].fillna(-np.inf).to_numpy(float),
        "params": params.column("cifar10", "params")[rows],
    }
    out = [row for name in DATASETS for row in told(name, known, params, rows)]
    write(
        "nasbench201_calm",
        out,
        batch="64 CIFAR-10 images",
        repeats=given.repeats,
        fast=given.fast,
        runs=RUNS,
        drawn=DRAWN,
    )


def scored(store: Path, *, repeats: int, fast: bool) -> dict[Any, dict[str, float]]:
    """Scores of all cells; equal networks share theirs."""
    store.mkdir(parents=True, exist_ok=True)
    space = naswot.get_space("nasbench201")
    options = PassOptions(**fast_options("cpu")) if fast else PassOptions()
    evaluator = Evaluator(
        space, cifar10(), NAMES, options=options, build={"n_classes": 10, "in_channels": 3}, pruned=True
    )
    with (
        ResultStore(store / "nasbench201_calm.sqlite", options=evaluator.describe()) as results,
        worker_pool(available_cores()) as executor,
    ):
        found: dict[Any, list[dict[str, float]]] = {}
        for answer in evaluator.map(space.genotypes(), repeats=repeats, executor=executor, store=results):
            found.setdefault(answer.genotype, []).append(dict(answer.scores))
    return {
        genotype: {name: float(np.mean([r[name] for r in rows])) for name in NAMES} for genotype, rows in found.items()
    }


def keep(scores: dict[Any, dict[str, float]], *, repeats: int, fast: bool) -> None:
    """The table of scores."""
    text = [
        f"# {key}: {value}"
        for key, value in provenance(batch="64 CIFAR-10 images", seed=0, repeats=repeats, fast=fast).items()
    ]
    text.append(",".join(["genotype", *NAMES]))
    for genotype in sorted(scores):
        numbers = (f"{scores[genotype][name]:.6g}" for name in NAMES)
        text.append(",".join(["-".join(map(str, genotype)), *numbers]))
    (RESULTS / "nasbench201_calm.csv.gz").write_bytes(gzip.compress(("\n".join(text) + "\n").encode(), mtime=0))


def told(name: str, known: dict[str, Floats], benchmark: Any, rows: list[int]) -> list[dict[str, Any]]:
    """One row for each score on one data set."""
    truth = benchmark.column({"CIFAR-10": "cifar10", "CIFAR-100": "cifar100"}.get(name, name), "test_accuracy")[rows]
    rng = numpy_generator(0)
    draws = [rng.choice(len(truth), DRAWN, replace=False) for _ in range(RUNS)]
    found = {score: np.array([best_of(values, truth, draw) for draw in draws]) for score, values in known.items()}
    random = np.array([truth[draw[0]] for draw in draws])
    best = np.array([truth[draw].max() for draw in draws])
    out = []
    for score, values in known.items():
        tau = kendall_interval(finite(values), truth)
        gain = found["calm"] - found[score]
        half = 1.96 * gain.std(ddof=1) / np.sqrt(RUNS)
        out.append(
            {
                "dataset": name,
                "score": score,
                "n": tau.n,
                "tau": round(tau.value, 4),
                "low": round(tau.low, 4),
                "high": round(tau.high, 4),
                "tau_top_10": round(tau_in_top(finite(values), truth, 0.1), 4),
                "found": round(float(found[score].mean()), 3),
                "found_sd": round(float(found[score].std(ddof=1)), 3),
                "calm_gain": round(float(gain.mean()), 3),
                "gain_low": round(float(gain.mean() - half), 3),
                "gain_high": round(float(gain.mean() + half), 3),
                "random": round(float(random.mean()), 3),
                "best_drawn": round(float(best.mean()), 3),
            }
        )
    return out


def finite(values: Floats) -> Floats:
    """Undefined scores last."""
    worst = values[np.isfinite(values)].min()
    clean: Floats = np.where(np.isfinite(values), values, worst - 1)
    return clean


def best_of(values: Floats, truth: Floats, draw: NDArray[np.int64]) -> float:
    """Trained result of the best drawn cell by a score; the mean over ties."""
    top = values[draw] == values[draw].max()
    return float(truth[draw][top].mean())


if __name__ == "__main__":
    main()
