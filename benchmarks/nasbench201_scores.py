"""NASWOT's score of all 15,625 NAS-Bench-201 cells, for searches on the table: results/nasbench201_naswot.csv.gz.

One batch of 128 CIFAR-10 images, one initialisation, --fast (channels-last, bfloat16 where the processor has it), one
thread for each worker. The store is that of the command below, so that either goes on where the other was stopped:
naswot search -n 15625 --data cifar10 --batch-size 128 --fast --train-epochs 0 \
    --proxies naswot,naswot_size,naswot_diversity --out FOLDER
Run: NASWOT_DATA=... python benchmarks/nasbench201_scores.py --store FOLDER
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from pathlib import Path

from common import RESULTS, cifar10, provenance

import naswot
from naswot.evaluate import Evaluator
from naswot.options import PassOptions, fast_options
from naswot.run import sample_distinct
from naswot.store import ResultStore
from naswot.workers import available_cores, worker_pool

NAMES = ("naswot", "naswot_size", "naswot_diversity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="run folder that keeps the scores")
    given = parser.parse_args()
    space = naswot.get_space("nasbench201")
    evaluator = Evaluator(
        space,
        cifar10(),
        NAMES,
        batch_size=128,
        options=PassOptions(**fast_options("cpu")),
        build={"n_classes": 10, "in_channels": 3},
    )
    rows = {}
    path = Path(given.store) / "results.sqlite"
    with ResultStore(path, options=evaluator.describe()) as store, worker_pool(available_cores()) as executor:
        for done in evaluator.map(sample_distinct(space, space.size), executor=executor, store=store):
            seconds = sum(done.seconds.values())
            rows[done.genotype] = [done.arch, *(f"{done.scores[name]:.8g}" for name in NAMES), f"{seconds:.3f}"]
    text = io.StringIO()
    about = {
        "batch": "128 CIFAR-10 training images",
        "seed": 0,
        "seconds": "building and scoring, a worker of a busy CPU",
    }
    text.writelines(f"# {key}: {value}\n" for key, value in provenance(**about).items())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arch", *NAMES, "seconds"])
    writer.writerows(rows[genotype] for genotype in sorted(rows))
    (RESULTS / "nasbench201_naswot.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{len(rows):,} cells")


if __name__ == "__main__":
    main()
