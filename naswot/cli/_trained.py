"""A table of trained architectures, as the user brings it."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from naswot.errors import DataError, InputError, unknown_name


@dataclass(frozen=True)
class Trained:
    """Architectures with what they reached.

    Args:
        archs: as written, each once.
        accuracies: by row, the mean over ``trainings`` where the table has no column of its own for it.
        trainings: by row, accuracies of single trainings, NaN where there is none; empty where there are not two.
        columns: all other columns by name, as text.
    """

    archs: tuple[str, ...]
    accuracies: tuple[float, ...]
    trainings: tuple[tuple[float, ...], ...]
    columns: Mapping[str, Sequence[str]]


def read_trained(path: Path, *, arch: str = "arch", accuracy: str = "accuracy") -> Trained:
    """Read a CSV file with a header.

    Args:
        path: of the file.
        arch: name of the column with the architectures.
        accuracy: name of the column with the accuracies; ``accuracy_0``, ``accuracy_1``, ... are single trainings.
    Raises:
        DataError: if the file cannot be read as such a table.
        InputError: for a missing column, an architecture that stands there twice, or an accuracy that is no number.
    """
    header, rows = _cells(path)
    singles = sorted((c for c in header if re.fullmatch(re.escape(accuracy) + r"_\d+", c)), key=lambda c: (len(c), c))
    for wanted, option in ((arch, "--arch-column"), (accuracy, "--accuracy-column")):
        if wanted not in header and not (wanted == accuracy and singles):
            raise InputError(f"{path} has no column {wanted!r}; name one of {', '.join(header)} by {option}")
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}
    _refuse_repeated(columns[arch], path)
    trainings = [_numbers(columns[name], path, name, empty=True) for name in singles]
    if accuracy in header:
        accuracies = _numbers(columns[accuracy], path, accuracy)
    else:
        known = [[value for value in values if not math.isnan(value)] for values in zip(*trainings, strict=True)]
        none = next((columns[arch][i] for i, values in enumerate(known) if not values), None)
        if none is not None:
            raise InputError(f"{path}: {none} has no accuracy in any of {', '.join(singles)}")
        accuracies = [math.fsum(values) / len(values) for values in known]
    others = {name: cells for name, cells in columns.items() if name not in (arch, accuracy, *singles)}
    by_row = tuple(zip(*trainings, strict=True)) if len(trainings) > 1 else ()
    return Trained(tuple(columns[arch]), tuple(accuracies), by_row, others)


def scores_in(trained: Trained, wanted: Sequence[str] = ()) -> tuple[dict[str, list[float]], list[str]]:
    """The numeric columns by name, an empty cell as NaN, and a note on each that was left out.

    Args:
        trained: the table.
        wanted: these columns only; empty: every numeric one.
    Raises:
        InputError: for a wanted column that is not numeric, or if there is none.
        UnknownNameError: for a wanted column that is not there.
    """
    found, notes = {}, []
    for name in wanted or trained.columns:
        if name not in trained.columns:
            raise unknown_name("column", name, trained.columns)
        bad = next((cell for cell in trained.columns[name] if cell and _number(cell) is None), None)
        if bad is None and any(trained.columns[name]):
            found[name] = [math.nan if not cell else float(cell) for cell in trained.columns[name]]
        elif wanted:
            raise InputError(f"column {name!r} is no score: " + (f"it holds {bad!r}" if bad else "it is empty"))
        else:
            notes.append(f"column {name!r} is left out: " + (f"it holds {bad!r}" if bad else "it is empty"))
    if not found:
        raise InputError(f"the table holds no score beside accuracy; it has the columns {', '.join(trained.columns)}")
    return found, notes


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a CSV file: {error}") from error
    if len(lines) < 2:
        raise DataError(f"{path} holds no table: expected a header and one row for each architecture")
    header = [name.strip() for name in lines[0][1]]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has {header.count(twice)} columns {twice!r}; give each a name of its own")
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: expected {len(header)} cells, but got {len(row)}")
    return header, [row for _, row in lines[1:]]


def _refuse_repeated(archs: Sequence[str], path: Path) -> None:
    if "" in archs:
        raise InputError(f"{path}: row {archs.index('') + 1} names no architecture")
    twice = next((arch for arch in archs if archs.count(arch) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: {twice} stands there {archs.count(twice)} times; expected each architecture once")


def _numbers(cells: Sequence[str], path: Path, name: str, *, empty: bool = False) -> list[float]:
    """Finite numbers; NaN for an empty cell or "nan", if these are allowed."""
    values = []
    for row, cell in enumerate(cells, start=1):
        value = math.nan if not cell else _number(cell)
        if value is None or math.isinf(value) or (math.isnan(value) and not empty):
            raise InputError(f"{path}: {name} of row {row} is {cell!r}; expected a number")
        values.append(value)
    return values


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
