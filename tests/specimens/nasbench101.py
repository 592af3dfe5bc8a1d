"""NAS-Bench-101, and the scores of NAS-Bench-Suite-Zero on its space."""

from __future__ import annotations

import base64
import importlib
import json
import struct
from pathlib import Path
from typing import Any

from specimens._base import of_benchmark, values, write_json, write_parquet
from specimens.tables import zero, zero_shard

C1, C3, POOL = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"
CELLS: list[tuple[list[tuple[int, int]], list[str]]] = [
    ([(0, 1), (1, 2), (2, 6), (0, 3), (3, 4), (4, 5), (5, 6)], [POOL, C1, C3, C3, POOL]),
    ([(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (1, 5), (3, 5), (4, 6), (5, 6)], [C3, C1, POOL, C3, C1]),
]
"""Edges and operations of cells of seven vertices."""
SINGLE = {"test_accuracy": 0.93, "validation_accuracy": 0.94, "training_time": 1500.5}


def cells() -> list[tuple[list[list[int]], list[str]]]:
    """Matrices and operations, ``input`` and ``output`` among them."""
    matrices = [[[int((s, t) in edges) for t in range(7)] for s in range(7)] for edges, _ in CELLS]
    return [(matrix, ["input", *names, "output"]) for matrix, (_, names) in zip(matrices, CELLS, strict=True)]


def tfrecord(path: Path) -> Path:
    masked_crc32c = importlib.import_module("bench_adapters._tfrecord").masked_crc32c
    parts = []
    for number, (matrix, names) in enumerate(cells()):
        for epochs in (4, 108, 108):
            bits = "".join(str(bit) for row in matrix for bit in row)
            metrics = base64.b64encode(message()).decode()
            record = json.dumps([f"{number:032x}", epochs, bits, ",".join(names), metrics]).encode()
            for part in (struct.pack("<Q", len(record)), record):
                parts += [part, int(masked_crc32c([part])[0]).to_bytes(4, "little")]
    path.write_bytes(b"".join(parts))
    return path


def message() -> bytes:
    """ModelMetrics: three stages of a training, of which each has seconds and three accuracies; and parameters."""
    figures = b"".join(bytes([number << 3 | 1]) + struct.pack("<d", value) for number, value in FIGURES.items())
    return 3 * (bytes([1 << 3 | 2, len(figures)]) + figures) + bytes([2 << 3, 0xA0, 0x8D, 0x06])


FIGURES = {2: 1500.5, 3: 0.99, 4: 0.94, 5: 0.93}


def export(path: Path) -> Path:
    """Of arch2vec a mapping with operations one-hot, of CTNAS a list."""
    if path.name == "nas_bench.json":
        return write_json(path, [{"matrix": m, "ops": names, **SINGLE, "n_params": 1000} for m, names in cells()])
    order = ["input", C1, C3, POOL, "output"]
    rows: dict[str, Any] = {}
    for number, (matrix, names) in enumerate(cells()):
        padded = [row + [0] * (7 - len(row)) for row in matrix] + [[0] * 7] * (7 - len(matrix))
        codes = [[int(name == other) for other in order] for name in names] + [[0] * 5] * (7 - len(names))
        rows[str(number)] = {"module_adjacency": padded, "module_operations": codes, **SINGLE}
    return write_json(path, rows)


def table(path: Path) -> Path:
    both = cells()
    columns = {"adjacency": [json.dumps(matrix) for matrix, _ in both], "ops": [",".join(names) for _, names in both]}
    return write_parquet(path, **columns, n_nodes=[len(names) for _, names in both], test_acc=values(2, 90.0) / 100)


for file in ("nasbench_full.tfrecord", "nasbench_only108.tfrecord"):
    of_benchmark("nasbench101", file)(lambda folder, f=file: tfrecord(folder / f))
for file in ("nasbench101.json", "nas_bench.json"):
    of_benchmark("nasbench101", file)(lambda folder, f=file: export(folder / f))
of_benchmark("nasbench101", "parquet")(lambda folder: table(folder / "nb101_1250_archs.parquet"))

MATRIX = str((*[int((s, t) in CELLS[0][0]) for s in range(7) for t in range(7)], 0, 2, 3, 4, 4, 2, 1))
of_benchmark("suite_zero_nasbench101", "json")(lambda folder: zero(folder, "nasbench101", [MATRIX], "cifar10"))
of_benchmark("suite_zero_nasbench101", "shard")(lambda folder: zero_shard(folder, "nasbench101", [MATRIX], "cifar10"))
