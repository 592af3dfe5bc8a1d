"""Files of NAS-Bench-101, which NAS-Bench-1Shot1 reads too: github.com/google-research/nasbench."""

from __future__ import annotations

import binascii
import itertools
import json
import math
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench_adapters._io import read_json, read_parquet, with_keys
from bench_adapters._protobuf import fields
from bench_adapters._tfrecord import read_records
from naswot.benchmark import Column, Table
from naswot.errors import DataError
from naswot.spaces.nasbench101 import NASBench101

FILES: Final = (
    "nasbench_full.tfrecord",
    "nasbench_only108.tfrecord",
    "nasbench101.json",
    "nas_bench.json",
    "nb101_1250_archs.parquet",
    "nb101_all_accuracy_params.parquet",  # last because of the minute that it takes
)
_SPACE: Final = NASBench101()
_LAST: Final = 108  # epochs of the longest training
_METRICS: Final = {2: "train_seconds", 4: "valid_accuracy", 5: "test_accuracy"}  # by field of EvaluationData
_EXPORTED: Final = {
    "test_accuracy": (Column("cifar10", "test_accuracy", _LAST), 100.0),
    "validation_accuracy": (Column("cifar10", "valid_accuracy", _LAST), 100.0),
    "training_time": (Column("cifar10", "train_seconds", _LAST), 1.0),
    "n_params": (Column("cifar10", "params"), 1.0),
}
_ONE_HOT: Final = ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")


def read_table(path: Path) -> Table:
    """Any file of NAS-Bench-101 that ``FILES`` names, by its ending and content."""
    if path.suffix == ".tfrecord":
        return _official(path)
    if path.suffix == ".json":
        return _json(path)
    frame = read_parquet(path)
    return _some_cells(frame) if "adjacency" in frame else _all_cells(frame, path)


# ----------------------------------------------------------------------------------------------------- official files


def _official(path: Path) -> Table:
    """Each record is JSON of module hash, epochs, adjacency matrix, operations and metrics; trainings come in order."""
    rows: dict[bytes, int] = {}
    genes = bytearray()
    values: dict[Column, array[float]] = {}
    for record in read_records(path):
        module_hash, epochs, adjacency, operations, metrics = json.loads(record)
        key = bytes.fromhex(module_hash)
        row = rows.setdefault(key, len(rows))
        found = _metrics(binascii.a2b_base64(metrics))
        if len(genes) == row * len(_SPACE.choices):
            genes += bytes(_genotype(adjacency, operations))
            _put(values, Column("cifar10", "params"), row, found["params"])
        seed = next(
            n for n in itertools.count() if not _known(values.get(Column("cifar10", "test_accuracy", epochs, n)), row)
        )
        for metric in _METRICS.values():
            _put(values, Column("cifar10", metric, epochs, seed), row, found[metric])
    return Table(np.frombuffer(genes, dtype=np.uint8).reshape(-1, len(_SPACE.choices)), _columns(values, len(rows)))


def _genotype(adjacency: str, operations: str) -> tuple[int, ...]:
    n = math.isqrt(len(adjacency))
    bits = [int(bit) for bit in adjacency]
    return _SPACE.from_matrix([bits[row * n : (row + 1) * n] for row in range(n)], operations.split(","))


def _metrics(message: bytes) -> dict[str, float]:
    """Figures at the end of a training, from a ModelMetrics message: its third EvaluationData and its parameters."""
    stages: list[bytes] = []
    found: dict[str, float] = {}
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            stages.append(value)
        elif number == 2:
            found["params"] = float(value)
    for number, value in fields(stages[2]):  # 0 before training, 1 halfway, 2 at its end
        if number in _METRICS:
            found[_METRICS[number]] = 100 * float(value) if number > 2 else float(value)
    return found


def _known(held: array[float] | None, row: int) -> bool:
    return held is not None and row < len(held) and not math.isnan(held[row])


def _put(values: dict[Column, array[float]], column: Column, row: int, value: float) -> None:
    """Grow a column as far as it is known, so that nothing is reserved for trainings that a file does not hold."""
    held = values.setdefault(column, array("d"))
    if row >= len(held):
        held.extend([math.nan] * (row + 1 - len(held)))
    held[row] = value


def _columns(values: Mapping[Column, array[float]], n: int) -> dict[Column, NDArray[np.float64]]:
    def full(held: array[float]) -> NDArray[np.float64]:
        held.extend([math.nan] * (n - len(held)))
        return np.frombuffer(held)

    order = sorted(values, key=lambda column: (column.metric, column.epochs or 0, column.seed or 0))
    return {column: full(values[column]) for column in order}


# --------------------------------------------------------------------------------------------------------- JSON files


def _json(path: Path) -> Table:
    """The two exports in use: arch2vec's mapping from numbers and CTNAS's list; both hold means over the trainings."""
    content = read_json(path, _row)
    rows = list(content.values()) if isinstance(content, dict) else content
    names = {name: scale for name, scale in _EXPORTED.items() if name in rows[0][1]}
    columns = {column: [scale * figures[name] for _, figures in rows] for name, (column, scale) in names.items()}
    genes = np.frombuffer(b"".join(genes for genes, _ in rows), dtype=np.uint8)
    return Table(genes.reshape(len(rows), -1), columns)


def _row(entry: dict[str, Any]) -> Any:
    """Genes and figures of an architecture; any other object as it is."""
    if "ops" in entry:
        matrix, names = entry["matrix"], entry["ops"]
    elif "module_operations" in entry:  # padded with zeros to seven vertices, operations one-hot
        names = [_ONE_HOT[code.index(1)] for code in entry["module_operations"] if any(code)]
        matrix = [line[: len(names)] for line in entry["module_adjacency"][: len(names)]]
    else:
        return entry
    figures = {name: entry[name] for name in _EXPORTED if name in entry}
    return bytes(_SPACE.from_matrix(matrix, names)), figures


# ----------------------------------------------------------------------------------------------------- compact tables


def _some_cells(frame: Mapping[str, NDArray[Any]]) -> Table:
    """Columns ``adjacency``, ``ops`` and ``test_acc``, the accuracy of one training, as a fraction."""
    cells = zip(frame["adjacency"], frame["ops"], strict=True)
    genotypes = [_SPACE.from_matrix(json.loads(matrix), names.split(",")) for matrix, names in cells]
    return Table(genotypes, {Column("cifar10", "test_accuracy", _LAST, 0): 100 * frame["test_acc"]})


def _all_cells(frame: Mapping[str, NDArray[Any]], path: Path) -> Table:
    """Columns ``hash_iter_index``, ``test_acc_108_mean``, ``params_M`` (float32) of all cells in order of hashes."""
    with_keys(path, frame, ["hash_iter_index", "test_acc_108_mean", "params_M"])  # before the cells are worked out
    genes = _SPACE.published()
    if not np.array_equal(frame["hash_iter_index"], np.arange(len(genes))):
        raise DataError(f"{path} does not hold all {len(genes):,} cells in order: hash_iter_index should count them")
    values, firsts, which = np.unique(frame["params_M"], return_index=True, return_inverse=True)
    counts = np.array([_SPACE.n_parameters(tuple(map(int, genes[row]))) for row in firsts])
    if not np.array_equal(np.float32(counts / 1e6), values):
        raise DataError(f"{path} is not in the order of the graph hashes: params_M do not belong to the cells")
    columns = {
        Column("cifar10", "test_accuracy", _LAST): 100 * frame["test_acc_108_mean"].astype(np.float64),
        Column("cifar10", "params"): counts[which],
    }
    return Table(genes, columns)
