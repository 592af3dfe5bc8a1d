"""Anyone's table of trained architectures as a benchmark: csv (also .gz) or parquet, one row for each architecture."""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naswot import _benchmark_file
from naswot.benchmark import Benchmark, Column, Table
from naswot.errors import ArchitectureError, DataError
from naswot.space import SearchSpace, get_space

_NAME = re.compile(r"(?:(?P<dataset>[^/]+)/)?(?P<metric>[^/]+?)(?:/e(?P<epochs>\d+))?(?:/s(?P<seed>\d+))?")


def read_table(path: str | os.PathLike[str], *, space: str | SearchSpace, arch: str = "arch") -> Benchmark:
    """A table with a column of architecture strings and columns of numbers.

    A column named ``cifar10/test_accuracy/e200/s1`` holds the test accuracy on ``cifar10`` after 200 epochs of training
    number 1; data set, epochs and seed may be left out, so that ``accuracy`` will do (the data set is then called as
    the file is). Columns that do not hold numbers are passed over; an empty cell is a result that is not known.

    Args:
        path: ``.csv``, ``.csv.gz`` (lines that begin with # are comments) or ``.parquet``.
        space: what the architecture strings mean.
        arch: name of their column.
    Raises:
        DataError: if the file cannot be read, has no such column, a string that the space does not know, an
            architecture twice, or no column of numbers.
    """
    path = Path(path)
    space = get_space(space) if isinstance(space, str) else space
    columns: dict[str, Any] = _benchmark_file.read_parquet(path) if path.suffix == ".parquet" else _csv_columns(path)
    if arch not in columns:
        raise DataError(f"{path} has no column {arch!r} of architectures; its columns are: {', '.join(columns)}")
    genotypes = []
    for number, text in enumerate(columns.pop(arch), start=1):
        try:
            genotypes.append(space.parse(str(text)))
        except ArchitectureError as error:
            raise DataError(f"{path}, row {number}: {error}") from error
    stem = path.name.partition(".")[0]
    numbers = {column_of(name, stem): _numbers(values) for name, values in columns.items()}
    known = {column: values for column, values in numbers.items() if values is not None}
    if not known:
        raise DataError(f"{path} has no column of numbers beside {arch!r}")
    return Benchmark(stem, space, Table(genotypes, known), source=str(path))


def column_name(column: Column) -> str:
    """How a table calls a column, such as ``cifar10/test_accuracy/e200/s1``."""
    length = "" if column.epochs is None else f"/e{column.epochs}"
    return f"{column.dataset}/{column.metric}{length}" + ("" if column.seed is None else f"/s{column.seed}")


def column_of(name: str, dataset: str) -> Column:
    """The column of that name; ``dataset`` where the name has none."""
    found = _NAME.fullmatch(name.strip())
    if found is None:
        return Column(dataset, name.strip())
    epochs, seed = (None if found[key] is None else int(found[key]) for key in ("epochs", "seed"))
    return Column(found["dataset"] or dataset, found["metric"], epochs, seed)


def _numbers(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    try:
        return np.array([np.nan if value in ("", None) else float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _csv_columns(path: Path) -> dict[str, Sequence[Any]]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(line for line in file if not line.startswith("#")))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataError(f"cannot read {path}: it is missing, truncated or no csv file ({error})") from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataError(f"{path} holds no rows below its header")
    header = [name.strip() for name in rows[0]]
    if len(header) == 1 and ";" in header[0]:
        raise DataError(f"{path}: its cells are separated by semicolons; write it with commas")
    odd = next((n for n, row in enumerate(rows[1:], start=1) if len(row) != len(header)), None)
    if odd is not None:
        raise DataError(f"{path}, row {odd}: {len(rows[odd])} cells under a header of {len(header)}")
    double = next((name for name in header if header.count(name) > 1), None)
    if double is not None:
        raise DataError(f"{path} has two columns {double!r}")
    return {name: [row[place].strip() for row in rows[1:]] for place, name in enumerate(header)}
