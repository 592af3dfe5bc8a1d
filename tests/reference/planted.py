"""A made-up NAS-Bench-201: accuracies of all cells, and scores that follow them loosely."""

from __future__ import annotations

import gzip

import numpy as np

import naswot
from naswot.benchmark import Benchmark, Column, Table
from naswot.reproduce.published import COLUMNS

N = 15_625
UNIFORM = np.random.default_rng(0).permutation(np.arange(N) + 0.5) / N  # evenly spread over [0, 1]


def write_planted(root):
    """The benchmark as ``nasbench201.naswot.parquet``, accuracies 10 to 95 %, and ``nasbench201_naswot.csv.gz``."""
    space = naswot.get_space("nasbench201")
    accuracy = 10 + 85 * UNIFORM
    columns = {Column(dataset, metric, 200): accuracy for dataset, metric in COLUMNS}
    columns[Column("cifar10-valid", "valid_accuracy", 12)] = accuracy - 5
    genotypes = list(space.genotypes())
    Benchmark("nasbench201", space, Table(genotypes, columns)).save(root / "nasbench201.naswot.parquet")
    noisy = 700 + accuracy + np.random.default_rng(1).normal(0, 5, N)
    with gzip.open(root / "nasbench201_naswot.csv.gz", "wt") as file:
        file.write("# batch: made up\narch,naswot,seconds\n")
        for genotype, score in zip(genotypes, noisy, strict=True):
            file.write(f"{space.format(genotype)},{'-inf' if space.is_singular(genotype) else score},0.25\n")
    return root
