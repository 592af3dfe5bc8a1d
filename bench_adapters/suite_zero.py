"""NAS-Bench-Suite-Zero: zero-cost scores as its authors published them, beside the accuracy they are compared with.

Paper: Krishnakumar et al., NeurIPS 2022 (Datasets and Benchmarks), arXiv:2210.03230. Original code:
github.com/automl/NASLib, branch zerocost. A file maps data set, then architecture, to its scores; an architecture is a
tuple of numbers in NASLib's own coding, written as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench_adapters._io import read_json, with_keys
from bench_adapters._nats import columns_of
from naswot.benchmark import Column, Table, register_benchmark
from naswot.errors import ArchitectureError, DataError
from naswot.space import get_space
from naswot.types import Genotype

Decoder = Callable[[str], Genotype]
"""From the text of a key to a genotype of our space; for some spaces ``parse`` knows it."""

_REFERENCE = "Krishnakumar et al., NAS-Bench-Suite-Zero, NeurIPS 2022, arXiv:2210.03230"
_SHARD = re.compile(r"benchmark--(?P<space>.+)--(?P<dataset>.+)--\d+\.json")
_FAILED = -1e8
"""What the original code writes for a score that is not finite."""
_NAMES = {"val_accuracy": "valid_accuracy"}
_MILLIONS = ("params", "flops")
_NO_SCORES = ("idx", "id", "arch")


def _files(name: str) -> tuple[str, ...]:
    return f"zc_{name}.json", f"benchmark--{name}--*.json"


# --------------------------------------------------------------------------------------------------- one for each space


@register_benchmark(
    space="nasbench201",
    files=_files("nasbench201"),
    folders=("nasbench201", "nasbench201/original"),
    reference=_REFERENCE,
)
def suite_zero_nasbench201(path: Path) -> Table:
    """Published zero-cost scores of NAS-Bench-201 cells, with the validation accuracy of one training.

    Reads ``zc_nasbench201.json`` and the shards ``benchmark--nasbench201--DATASET--N.json`` of one data set it was
    joined from. Metrics are named as there; a score that failed is NaN, ``params`` and ``flops`` are counts.
    ``synflow`` is a logarithm.
    """
    return _table(path, "nasbench201", _nasbench201)


def _nasbench201(key: str) -> Genotype:
    """Six edges by source, 0-1, 0-2, 0-3, 1-2, 1-3, 2-3; codes 0 to 4 are skip, none, 3x3, 1x1, pooling."""
    a, b, c, d, e, f = ((1, 0, 3, 2, 4)[code] for code in _codes(key))
    return a, b, d, c, e, f


@register_benchmark(
    space="transnasbench101_micro",
    files=_files("transbench101_micro"),
    folders=("transnasbench101", "transnasbench101/original"),
    reference=_REFERENCE,
)
def suite_zero_transnasbench101_micro(path: Path) -> Table:
    """Published zero-cost scores of TransNAS-Bench-101 cells, with the validation metric of their task.

    Reads ``zc_transbench101_micro.json`` and the shards ``benchmark--transbench101_micro--TASK--N.json`` of one task.
    Metrics are named as there; a score that failed is NaN, ``params`` and ``flops`` are counts. What the files call
    accuracy is ``valid_metric`` here, in the unit of the task; in the file of 711 cells it is the best of all epochs,
    of segmentation the share of correct pixels.
    """
    return _table(path, "transnasbench101_micro", _codes, names={"val_accuracy": "valid_metric"})


def _codes(key: str) -> tuple[int, ...]:
    """The digits of such a key as ``(0, 2, 3, 2, 3, 1)``, which are the genotype itself where the codes are ours."""
    if not re.fullmatch(r"\(\d(, ?\d){5}\)", key):
        raise ArchitectureError(f"{key!r} is no architecture: the form is (0, 2, 3, 2, 3, 1)")
    return tuple(map(int, re.findall(r"\d", key)))


@register_benchmark(
    space="nasbench101",
    files=_files("nasbench101"),
    folders=("nasbench101", "nasbench101/original"),
    reference=_REFERENCE,
)
def suite_zero_nasbench101(path: Path) -> Table:
    """Published zero-cost scores of NAS-Bench-101 cells, with their validation accuracy.

    Reads ``zc_nasbench101.json``, also in its early form, and the shards ``benchmark--nasbench101--cifar10--N.json``.
    Metrics are named as there; a score that failed is NaN, ``params`` and ``flops`` are counts. Keys that differ in
    idle vertices only stand for one cell, which gets the mean of their scores and of their trainings' accuracies.
    """
    return _table(path, "nasbench101", get_space("nasbench101").parse)


@register_benchmark(
    space="darts",
    files=_files("nasbench301"),
    folders=("nasbench301", "nasbench301/original"),
    reference=_REFERENCE,
)
def suite_zero_darts(path: Path) -> Table:
    """Published zero-cost scores of cells of the DARTS space, with the accuracy that NAS-Bench-301 predicts.

    Reads ``zc_nasbench301.json`` and the shards ``benchmark--nasbench301--cifar10--N.json``. Metrics are named as
    there; a score that failed is NaN, ``params`` and ``flops`` are counts. ``surrogate_valid_accuracy`` is the
    prediction of a surrogate, not the result of a training.
    """
    return _table(path, "darts", get_space("darts").parse, names={"val_accuracy": "surrogate_valid_accuracy"})


# ------------------------------------------------------------------------------------------------------- shared by them


def _table(path: Path, space: str, decode: Decoder, *, names: Mapping[str, str] = _NAMES) -> Table:
    rows: dict[Genotype, dict[Column, list[float]]] = {}
    check = get_space(space).check
    for dataset, key, scores in _records(path, read_json(path)):
        try:
            found = rows.setdefault(check(decode(key)), {})
        except (ArchitectureError, IndexError, TypeError) as error:
            raise DataError(f"{path} holds {key!r}, which is no architecture of {space} ({error})") from error
        for name, score in with_keys(path, scores, ()).items():
            if name in _NO_SCORES:
                continue
            value = float(score["score"] if isinstance(score, Mapping) else score)
            if value != _FAILED and not math.isnan(value):
                column = Column(dataset, names.get(name, name))
                found.setdefault(column, []).append(1e6 * value if name in _MILLIONS else value)
    means = [{column: sum(values) / len(values) for column, values in row.items()} for row in rows.values()]
    return Table(list(rows), columns_of(means, len(rows)))


def _records(path: Path, content: Any) -> Iterator[tuple[str, str, Any]]:
    """Data set, key and scores of each architecture, in any of the forms there are."""
    shard = _SHARD.fullmatch(path.name)
    if shard:
        if not isinstance(content, list):
            raise DataError(f"{path} holds a {type(content).__name__}, but a list of architectures was expected")
        yield from ((shard["dataset"], with_keys(path, row, ["arch"])["arch"], row) for row in content)
        return
    content = with_keys(path, content, ())
    if set(content) == {path.stem.removeprefix("zc_")}:  # the early form has the space around it
        (content,) = content.values()
        content = with_keys(path, content, ())
    for dataset, scores in content.items():
        yield from ((dataset, key, row) for key, row in with_keys(path, scores, ()).items())
