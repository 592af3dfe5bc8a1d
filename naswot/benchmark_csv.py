"""A small benchmark as one compressed text file, which nothing but the standard library is needed to read.

Comment lines tell where it came from, one ``# key: JSON value`` each; then follows plain CSV with one line for each
architecture. Columns are named as in :mod:`naswot.tables`, which reads such a file too.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naswot.benchmark import Benchmark, Table
from naswot.errors import DataError, NaswotError
from naswot.space import get_space
from naswot.tables import column_name, column_of

SUFFIX = ".naswot.csv.gz"
_FORMAT = 1
_OURS = ("format", "space", "build", "images")


def write_csv(benchmark: Benchmark, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
    """Write a benchmark; the same one gives the same bytes. The file appears whole or not at all.

    Args:
        benchmark: what is written, integers exactly and other figures to six digits.
        path: the file; its name ends in ``.naswot.csv.gz``.
        about: where it came from, as JSON-able values.
    Raises:
        DataError: if it cannot be written.
    """
    ours = _FORMAT, benchmark.space.name, benchmark.build, benchmark.images
    text = io.StringIO()
    for key, value in {**dict(zip(_OURS, ours, strict=True)), **about}.items():
        text.write(f"# {key}: {json.dumps(value)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arch", *map(column_name, benchmark.columns)])
    archs = map(benchmark.space.format, benchmark.genotypes())
    cells = (map(_cell, benchmark[column].tolist()) for column in benchmark.columns)
    writer.writerows(zip(archs, *cells, strict=True))
    target = Path(path)
    part = target.with_name(f"{target.name}.part")
    try:
        part.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
        part.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error


def read_csv(path: str | os.PathLike[str]) -> Table:
    """The table of such a file.

    Raises:
        DataError: if it is truncated, damaged or no such file.
    """
    return _read(Path(path))[0]


def open_csv(path: str | os.PathLike[str]) -> Benchmark:
    """The benchmark in such a file, named as the file.

    Raises:
        DataError: if it is truncated, damaged or no such file.
        UnknownNameError: if its space is not installed.
    """
    table, about = _read(Path(path))
    name = Path(path).name.removesuffix(SUFFIX)
    return Benchmark(name, get_space(about["space"]), table, source=str(path))


def _read(path: Path) -> tuple[Table, dict[str, Any]]:
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        comments = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
        about = {key: json.loads(value) for key, value in comments}
        if about.get("format") != _FORMAT:
            raise DataError(
                f"{path} has format {about.get('format')}, but format {_FORMAT} is expected; build it again"
            )
        header, *rows = csv.reader(lines[len(comments) :])
        space = get_space(about["space"])
        genotypes = [space.parse(row[0]) for row in rows]
        vectors = zip(*([float(cell) if cell else math.nan for cell in row[1:]] for row in rows), strict=True)
        columns = {column_of(name, ""): vector for name, vector in zip(header[1:], vectors, strict=True)}
        return Table(genotypes, columns, about["build"], about["images"]), about
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except NaswotError:
        raise
    except Exception as error:  # a damaged file can break a reader anywhere
        raise DataError(f"{path} is damaged, or was not written by `naswot benchmark build` ({error})") from error


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if value == int(value) else f"{value:.6g}"
