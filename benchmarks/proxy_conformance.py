"""Agreement of the proxies with published scores, by rank, on NAS-Bench-201 cells.

Published: NAS-Bench-Suite-Zero (NASLib), CIFAR-10, one initialisation, 9,445 cells without unreachable operations; the
scores of one initialisation bound what any other run can agree to, so the mean of 3 seeds is compared, and the
agreement between our own seeds stands beside it. Resumable by --store. Run:
NASWOT_DATA=... python benchmarks/proxy_conformance.py [-n 400] [--proxies params,snip,...]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from common import cifar10, nb201_table, write
from scipy.stats import spearmanr

import naswot
from naswot.evaluate import Evaluator
from naswot.store import ResultStore
from naswot.workers import available_cores, worker_pool

COLUMNS = {
    **{name: name for name in ("params", "flops", "snip", "grad_norm", "synflow", "jacov", "l2_norm", "fisher")},
    **{name: name for name in ("epe_nas", "zen", "grasp", "plain")},
    "naswot": "nwot",
}
ASKED = {
    **{"params": 1.0, "flops": 0.996, "naswot": 0.98, "snip": 0.97, "grad_norm": 0.97, "synflow": 0.95},
    **{"jacov": 0.95, "l2_norm": 0.92, "fisher": 0.90, "epe_nas": 0.88, "zen": 0.70, "grasp": 0.70},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--proxies", default=",".join(COLUMNS))
    parser.add_argument("--store", help="folder that keeps the scores, to go on after an interruption")
    given = parser.parse_args()
    names = tuple(given.proxies.split(","))
    table = nb201_table("nb201_c10_suite_zero_scores_9445.parquet")
    chosen = table.iloc[np.random.default_rng(3).permutation(len(table))[: given.n]]
    # NASLib's zen draws once; the mean is over our seeds
    proxies = tuple(naswot.get_proxy(name, **({"repeats": 1} if name == "zen" else {})) for name in names)
    evaluator = Evaluator(naswot.get_space("nasbench201"), cifar10(), proxies, batch_size=64)
    path = Path(given.store or tempfile.mkdtemp()) / "conformance.sqlite"
    found: dict[object, dict[int, dict[str, float]]] = {}
    with ResultStore(path, options=evaluator.describe()) as store, worker_pool(available_cores()) as executor:
        for done in evaluator.map(list(chosen["genotype"]), repeats=given.repeats, executor=executor, store=store):
            found.setdefault(done.genotype, {})[done.repeat] = dict(done.scores)
    ours = {
        name: np.array([[found[g][r][name] for r in range(given.repeats)] for g in chosen["genotype"]])
        for name in names
    }
    rows = [compared(name, ours[name], chosen[COLUMNS[name]].to_numpy()) for name in names]
    write(
        "proxy_conformance",
        rows,
        cells=f"{given.n} of 9,445, the first of a permutation from seed 3",
        batch="64 CIFAR-10 training images, another batch and initialisation for each seed",
        repeats=given.repeats,
    )


def compared(name: str, ours: np.ndarray, published: np.ndarray) -> dict[str, object]:
    """Spearman of the mean over seeds with the published column, of single seeds, and between seeds."""
    finite = np.isfinite(ours).all(axis=1) & np.isfinite(published)
    ours, published = ours[finite], published[finite]
    single = [spearmanr(column, published).statistic for column in ours.T]
    between = [spearmanr(a, b).statistic for a, b in itertools.combinations(ours.T, 2)]
    return {
        "proxy": name,
        "spearman": round(float(spearmanr(ours.mean(axis=1), published).statistic), 4),
        "asked": ASKED.get(name, ""),
        "single_seed": round(float(np.mean(single)), 4),
        "between_own_seeds": round(float(np.mean(between)), 4) if between else "",
        "finite": int(finite.sum()),
    }


if __name__ == "__main__":
    main()
