"""NAS-Bench-301: trained results and the surrogate's predictions on the DARTS space, CIFAR-10.

Paper: Zela et al., Surrogate NAS Benchmarks: Going Beyond the Limited Search Spaces of Tabular NAS Benchmarks, ICLR
2022, arXiv:2008.09777; files of github.com/automl/nasbench301.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench_adapters._io import read_json, read_parquet
from naswot.benchmark import Column, Table, register_benchmark
from naswot.errors import DataError, MissingPackageError, NaswotError
from naswot.spaces.darts import DARTS
from naswot.types import Genotype

_PREFIX = "NetworkSelectorDatasetInfo:darts:"
_STANDARD = 8, 32

_IMAGES = {"data": "cifar10"}


@register_benchmark(
    space="darts",
    files=("nb_301*", "nb301_725_archs_*.parquet", "results_*.json"),
    folders=("nasbench301", "nasbench301/original"),
    reference="Zela et al., Surrogate NAS Benchmarks, ICLR 2022, arXiv:2008.09777",
)
def nasbench301(path: Path) -> Table:
    """NAS-Bench-301: cells of the DARTS space trained on CIFAR-10, or the surrogate's predictions.

    Reads the folder of training results ``results_*.json``, in any depth; one such file stands for all in its folder.
    Also a compact table with columns ``arch`` and ``val_accuracy``, which holds predictions, here
    ``surrogate_valid_accuracy``.

    Results: ``valid_accuracy`` on 10,000 images that were not trained on and ``test_accuracy``, after the last epoch;
    ``train_seconds``; ``params`` with the second classifier (``auxiliary=True``). The data set is ``cifar10`` for
    networks of 8 cells and width 32, else its name tells both, such as ``cifar10-20x50``. Trainings of one architecture
    are seeds 0, 1, ... in the order of file names.
    """
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        space = DARTS()
        columns = {Column("cifar10", "surrogate_valid_accuracy"): frame["val_accuracy"]}
        return Table([space.parse(arch) for arch in frame["arch"]], columns, images=_IMAGES)
    paths = sorted(path.rglob("results_*.json") if path.is_dir() else path.parent.glob("results_*.json"))
    if not paths:
        raise DataError(f"{path} holds no file results_*.json")
    return _table(_training(path) for path in paths)


class _Training(NamedTuple):
    genotype: Genotype
    dataset: str
    epochs: int
    figures: dict[str, float]


def _training(path: Path) -> _Training:
    content = read_json(path)
    try:
        config = content["optimized_hyperparamater_config"]
        size = config[f"{_PREFIX}layers"], config[f"{_PREFIX}init_channels"]
        last = content["info"][0]
        figures = {
            "valid_accuracy": float(last["val_accuracy"]),
            "test_accuracy": float(content["test_accuracy"]),
            "train_seconds": float(content["runtime"]),
            "params": float(last["model_parameters"]),
        }
        cells = [_cell(config, name) for name in ("normal", "reduce")]
        genotype = DARTS().from_cells(*cells)
        dataset = "cifar10" if size == _STANDARD else f"cifar10-{size[0]}x{size[1]}"
        return _Training(genotype, dataset, int(content["budget"]), figures)
    except (KeyError, IndexError, TypeError, ValueError, NaswotError) as error:
        raise DataError(f"{path} is no sound training result ({type(error).__name__}: {error})") from error


def _cell(config: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    """(operation, input) of each edge; edges are numbered over all nodes, and node 2 has no choice of inputs."""
    edges, first = [], 0
    for node in range(2, 6):
        inputs = "0_1" if node == 2 else config[f"{_PREFIX}inputs_node_{name}_{node}"]
        for source in map(int, inputs.split("_")):
            edges.append((config[f"{_PREFIX}edge_{name}_{first + source}"], source))
        first += node
    return edges


def _table(trainings: Iterator[_Training]) -> Table:
    """Rows in the order of their first training; NaN where an architecture has fewer trainings than another."""
    rows: dict[Genotype, int] = {}
    repeats: dict[tuple[Genotype, str, int], int] = {}
    found: dict[Column, dict[int, float]] = {}
    for genotype, dataset, epochs, figures in trainings:
        row = rows.setdefault(genotype, len(rows))
        seed = repeats.get((genotype, dataset, epochs), 0)
        repeats[genotype, dataset, epochs] = seed + 1
        for metric, value in figures.items():
            column = Column(dataset, metric) if metric == "params" else Column(dataset, metric, epochs, seed)
            found.setdefault(column, {})[row] = value
    columns: dict[Column, NDArray[np.float64]] = {}
    for column, values in found.items():
        columns[column] = np.full(len(rows), np.nan)
        columns[column][list(values)] = list(values.values())
    return Table(list(rows), columns, images=_IMAGES)


class _OfficialGenotype(NamedTuple):
    normal: list[tuple[str, int]]
    normal_concat: list[int]
    reduce: list[tuple[str, int]]
    reduce_concat: list[int]


def load_surrogate(folder: str | os.PathLike[str]) -> Callable[[Genotype], float]:
    """The surrogate: predicted validation accuracy (percent) of a genotype of ``darts``, without noise.

    Args:
        folder: of a downloaded ensemble, such as ``nb_models_1.0/xgb_v1.0``. The package ``nasbench301`` unpickles its
            files, which can run any code: take them from the authors only.
    Raises:
        MissingPackageError: if the package ``nasbench301`` is not installed.
        DataError: if the folder does not exist.
    """
    try:
        official = importlib.import_module("nasbench301")
    except ImportError as error:
        raise MissingPackageError(
            f"the surrogate of NAS-Bench-301 needs the package 'nasbench301': pip install nasbench301 ({error})"
        ) from error
    if not Path(folder).is_dir():
        raise DataError(f"there is no folder {folder}; expected a downloaded ensemble, such as nb_models_1.0/xgb_v1.0")
    ensemble, space = official.load_ensemble(str(folder)), DARTS()

    def predict(genotype: Genotype) -> float:
        normal, reduce = space.cells(genotype)
        described = _OfficialGenotype(list(normal.edges), list(normal.concat), list(reduce.edges), list(reduce.concat))
        return float(ensemble.predict(config=described, representation="genotype", with_noise=False))

    return predict
