"""What adaptive replication spends and finds, beside the same number of repeats for everyone.

Random architectures of the embedded benchmark. For each seed (other batches, other initialisations) all get R repeats,
which gives the best by uniform means, and `naswot.replicate` may take of these repeats what it asks for. Beside it: one
repeat for everyone, and `even_repeats`, what about the same passes buy when they are spread evenly. `_in_common` is the
number in common with the best by uniform means, which rest on the same repeats; `_in_fresh` that with the best by the
means of R other repeats. `intervals_hold`: share of the means that agree with the fresh ones by intervals of 95 %. No
trained result is looked at. Run: python benchmarks/replication.py
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from common import write

from naswot.benchmark import get_benchmark
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.replicating import Replication, replicate
from naswot.types import Evaluation, Genotype

BATCH = 64


class Memory:
    """A store in memory."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int, int], Evaluation] = {}

    def get(self, arch: str, seed: int, repeat: int = 0) -> Evaluation | None:
        """The evaluation under that key, if there is one."""
        return self.known.get((arch, seed, repeat))

    def append(self, evaluation: Evaluation) -> None:
        """Keep one evaluation."""
        self.known[evaluation.arch, evaluation.seed, evaluation.repeat] = evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="architectures")
    parser.add_argument("--proxy", default="naswot")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--best", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    benchmark = get_benchmark("nasbench201_digits")
    held = list(benchmark.genotypes())
    genotypes = [held[i] for i in sorted(np.random.default_rng(0).choice(len(held), given.n, replace=False))]
    images = get_data(**{"name": "digits", **{k: v for k, v in benchmark.images.items() if k != "data"}})
    build = {"n_classes": images.n_classes, "in_channels": images.shape[0], **benchmark.build}
    rows = []
    for seed in range(given.seeds):
        evaluator = Evaluator(benchmark.space, images, (given.proxy,), batch_size=BATCH, seed=seed, build=build)
        rows.append(row_of(evaluator, genotypes, given.repeats, given.best))
    about = {"benchmark": "nasbench201_digits", "architectures": given.n, "proxy": given.proxy, "batch": BATCH}
    write("replication", [*rows, mean_of(rows)], **about, best=given.best, repeats=given.repeats, level=0.95)


def row_of(evaluator: Evaluator, genotypes: Sequence[Genotype], repeats: int, best: int) -> dict[str, Any]:
    """Share of the passes, agreement of the best, noise against spread."""
    store = Memory()
    both = np.full((len(genotypes), 2 * repeats), np.nan)
    row = {evaluator.space.format(g): i for i, g in enumerate(genotypes)}
    for each in evaluator.map(genotypes, repeats=2 * repeats, store=store):
        both[row[each.arch], each.repeat] = each.scores[evaluator.names[0]]
    table, fresh = both[:, :repeats], both[:, repeats:].mean(1)
    found = replicate(evaluator, genotypes, best=best, repeats=repeats, store=store)
    even = max(1, round(repeats * found.passes / found.uniform))
    chosen = {
        "adaptive": {row[each.arch] for each in found.estimates[:best]},
        "one": best_by(table[:, 0], best),
        "even": best_by(table[:, :even].mean(1), best),
        "uniform": best_by(table.mean(1), best),
    }
    settled = {row[each.arch] for each in found.estimates[:best] if not each.contender}
    truth, held = best_by(fresh, best), holding(found, fresh, row, repeats)
    return {
        "seed": evaluator.seed,
        "share_of_passes": round(found.passes / found.uniform, 3),
        "contenders_left": len(found.contenders),
        "even_repeats": even,
        **{f"{name}_in_common": len(of & chosen["uniform"]) for name, of in chosen.items() if name != "uniform"},
        "settled_not_in_common": len(settled - chosen["uniform"]),
        **{f"{name}_in_fresh": len(of & truth) for name, of in chosen.items()},
        "settled_not_in_fresh": len(settled - truth),
        "intervals_hold": round(float(held.mean()), 3),
        "intervals_hold_in_top_20": round(float(held[:20].mean()), 3),
        "noise": round(float(found.noise or 0.0), 3),
        "spread": round(float(np.std(table.mean(1)[np.isfinite(table).all(1)])), 2),
    }


def holding(found: Replication, fresh: np.ndarray, row: Mapping[str, int], repeats: int) -> np.ndarray:
    """(n,) bool, best first: which means lie within 1.96 errors of the fresh ones, other batches taken out."""
    pairs = [(e.mean, e.standard_error, fresh[row[e.arch]]) for e in found.estimates if e.standard_error]
    mean, error, other = np.array([pair for pair in pairs if np.isfinite(pair[2])]).T
    away = mean - other - (mean - other).mean()
    return np.abs(away) < 1.96 * np.hypot(error, (found.noise or 0.0) / np.sqrt(repeats))


def best_by(means: np.ndarray, best: int) -> set[int]:
    """Rows of the largest means."""
    return set(np.argsort(-means, kind="stable")[:best].tolist())


def mean_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of all columns."""
    return {key: "mean" if key == "seed" else round(statistics.fmean(r[key] for r in rows), 3) for key in rows[0]}


if __name__ == "__main__":
    main()
