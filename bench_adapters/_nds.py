"""The JSON files of Network Design Spaces (NDS): one entry for each training of a network.

Paper: Radosavovic et al., On Network Design Spaces for Visual Recognition, ICCV 2019, arXiv:1905.13214; files of
github.com/facebookresearch/nds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench_adapters._io import read_json
from naswot.benchmark import Column, Table
from naswot.errors import DataError, NaswotError
from naswot.types import Genotype

REFERENCE = "Radosavovic et al., On Network Design Spaces for Visual Recognition, ICCV 2019, arXiv:1905.13214"

Description = Mapping[str, Any]
"""What an entry says of its network: the field ``net``."""


class _Training(NamedTuple):
    genotype: Genotype
    epochs: int
    test_accuracy: float
    best_test_accuracy: float
    params: float
    flops: float


def read_nds(path: Path, genotype_of: Callable[[Description], Genotype]) -> Table:
    """One official file: a list of entries, or several such lists by name, as in ``{"top": [...], "mid": [...]}``.

    The data set is ``imagenet`` for files whose name ends in ``_in.json``, else ``cifar10``. Accuracies are on the test
    images in percent: ``test_accuracy`` after the last epoch, ``best_test_accuracy`` after the best one, which was
    picked on the same images. ``flops`` are as published. Trainings of one architecture are seeds 0, 1, ... in
    file order.

    Args:
        path: the file.
        genotype_of: genotype from the description of a network; may fail as it likes on a malformed one.
    Raises:
        DataError: naming file and entry, if an entry is malformed or contradicts another one of its architecture.
    """
    trainings: dict[Genotype, list[_Training]] = {}
    for place, entry in _entries(path, read_json(path)):
        try:
            training = _training(entry, genotype_of)
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, NaswotError) as error:
            raise DataError(f"{path}: {place} is malformed ({type(error).__name__}: {error})") from error
        known = trainings.setdefault(training.genotype, [])
        known.append(training)
        if training[-2:] != known[0][-2:]:
            sizes = "{} params, {} flops"
            raise DataError(
                f"{path}: {place} has {sizes.format(*training[-2:])}, but the same architecture had "
                f"{sizes.format(*known[0][-2:])} before"
            )
    if not trainings:
        raise DataError(f"{path} holds no training")
    if path.stem.endswith("_in"):
        return Table(list(trainings), _columns("imagenet", trainings), build={"stem": "imagenet"})
    return Table(list(trainings), _columns("cifar10", trainings), images={"data": "cifar10"})


def _entries(path: Path, content: Any) -> Iterator[tuple[str, Any]]:
    """Entries with their place in the file, such as ``entry 3 of 'mid'``, counted from 0."""
    parts = content if isinstance(content, dict) else {"": content}
    for name, entries in parts.items():
        if not isinstance(entries, list):
            raise DataError(f"{path}: expected a list of trainings, or such lists by name, but got {type(entries)}")
        for number, entry in enumerate(entries):
            yield f"entry {number}" + (f" of {name!r}" if name else ""), entry


def _training(entry: Mapping[str, Any], genotype_of: Callable[[Description], Genotype]) -> _Training:
    epochs, errors = entry["optim"]["max_ep"], entry["test_ep_top1"]
    if len(errors) != epochs:
        raise ValueError(f"test_ep_top1 has {len(errors)} errors for {epochs} epochs")
    accuracies = [100.0 - error for error in (errors[-1], entry["min_test_top1"])]
    if not all(0.0 <= accuracy <= 100.0 for accuracy in accuracies):
        raise ValueError(f"accuracies {accuracies} are no percentages")
    params, flops = entry["params"], entry["flops"]
    if min(params, flops) < 0:
        raise ValueError(f"params {params} and flops {flops} are no counts")
    return _Training(genotype_of(entry["net"]), epochs, accuracies[0], accuracies[1], params, flops)


def _columns(dataset: str, trainings: Mapping[Genotype, list[_Training]]) -> dict[Column, NDArray[np.float64]]:
    """Columns (n,) of n architectures; NaN where one has fewer trainings than another."""
    columns: dict[Column, NDArray[np.float64]] = {}
    for metric in ("test_accuracy", "best_test_accuracy"):
        for row, repeats in enumerate(trainings.values()):
            for seed, training in enumerate(repeats):
                column = Column(dataset, metric, training.epochs, seed)
                values = columns.setdefault(column, np.full(len(trainings), np.nan))
                values[row] = getattr(training, metric)
    for metric in ("params", "flops"):
        columns[Column(dataset, metric)] = np.array([getattr(repeats[0], metric) for repeats in trainings.values()])
    return columns
