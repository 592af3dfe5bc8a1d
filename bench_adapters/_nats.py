"""The records that NAS-Bench-201 and NATS-Bench share: one mapping for each architecture and length of training."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench_adapters._io import with_keys
from naswot.benchmark import Column, Table
from naswot.data._safe_pickle import load_pickle
from naswot.errors import DataError
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype

Record = Mapping[str, Any]
Results = dict[Column, float]

_SPLITS = {"x-valid": "valid_accuracy", "x-test": "test_accuracy", "ori-test": "test_accuracy"}
_MEGA = 1e6


def results_of(records: Iterable[Record]) -> Results:
    """All figures of one architecture.

    Test accuracy is that of ``x-test`` where there is one (CIFAR-100, ImageNet16-120), else that of ``ori-test``; the
    former are half of the latter, which also holds the images of ``x-valid``. Accuracies are those after the last
    epoch, in percent; parameters and FLOPs are counts; ``train_seconds`` is the sum over the epochs.

    Args:
        records: for each length of training a mapping with ``all_results`` by data set and seed.
    """
    found: Results = {}
    for record in records:
        for (dataset, seed), run in record["all_results"].items():
            found |= _results_of_run(str(dataset), int(seed), run)
    return found


def _results_of_run(dataset: str, seed: int, run: Record) -> Results:
    epochs = int(run["epochs"])
    found: Results = {}
    for split, metric in sorted(_SPLITS.items()):  # x-test behind ori-test, whose place it takes
        value = run["eval_acc1es"].get(f"{split}@{epochs - 1}")
        if value is not None:
            found[Column(dataset, metric, epochs, seed)] = float(value)
    if run.get("train_times"):
        found[Column(dataset, "train_seconds", epochs, seed)] = float(sum(run["train_times"].values()))
    found[Column(dataset, "params")] = round(float(run["params"]) * _MEGA)
    found[Column(dataset, "flops")] = round(float(run["flop"]) * _MEGA)
    return found


def columns_of(rows: Iterable[Results], n: int) -> dict[Column, NDArray[np.float64]]:
    """Rows of figures as columns, (n,) each; NaN where a row has none."""
    columns: dict[Column, NDArray[np.float64]] = {}
    for number, row in enumerate(rows):
        for column, value in row.items():
            if column not in columns:
                columns[column] = np.full(n, np.nan)
            columns[column][number] = value
    return dict(sorted(columns.items(), key=lambda item: tuple((v is None, v) for v in item[0])))


@cache
def official_order() -> tuple[Genotype, ...]:
    """The cells of NAS-Bench-201 by their official number, for tables that give no architectures.

    The original enumerates the cells as our space does and shuffles them with Python's generator, seed 88
    (``generate_meta_info`` of AutoDL-Projects, marked there as never to be changed).
    """
    cells = list(get_space("nasbench201").genotypes())
    random.Random(88).shuffle(cells)
    return tuple(cells)


def read_folder(path: Path, space: SearchSpace) -> Table:
    """The official folder of NATS-Bench: ``meta.pickle.pbz2`` and a compressed pickle for each architecture.

    Architectures whose file is missing are left out, so that a part of the folder serves too.

    Raises:
        DataError: if there is no meta file, or none of the others, or one is damaged.
    """
    meta = path / "meta.pickle.pbz2"
    archs = with_keys(meta, load_pickle(meta), ["meta_archs"])["meta_archs"]
    files = sorted(path.glob("[0-9]*.pickle.pbz2"))
    if not files:
        raise DataError(f"{path} holds no file of an architecture, such as 000000.pickle.pbz2")
    rows, genotypes = [], []
    for file in files:
        number = int(file.name.partition(".")[0])
        if number >= len(archs):
            raise DataError(f"{file}: the meta file knows {len(archs):,} architectures only")
        rows.append(results_of(load_pickle(file).values()))
        genotypes.append(space.parse(archs[number]))
    return Table(genotypes, columns_of(rows, len(rows)))
