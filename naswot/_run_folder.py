"""What lies in a run folder, read back: results, summary, tables, pictures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from naswot import _html as html
from naswot import _store_sqlite as sql
from naswot.errors import DataError
from naswot.store import ResultStore
from naswot.types import Evaluation

STORE = "results.sqlite"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class RunFolder:
    """What a run folder holds; any part may be missing.

    Args:
        path: the folder.
        summary: settings and headline figures as the command wrote them.
        options: what determines the numbers, from the store.
        sessions: environments of the processes that wrote to the store, oldest first.
        evaluations: all that was ever scored in this folder.
        tables: the csv files, in order of their names.
        pictures: the PNG files by name.
    """

    path: Path
    summary: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    sessions: Sequence[Mapping[str, str]] = ()
    evaluations: Sequence[Evaluation] = ()
    tables: Sequence[html.Table] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def read_run(folder: Path) -> RunFolder:
    """Everything in a run folder.

    Raises:
        DataError: if it holds nothing of a run, or a file that cannot be read.
        StoreError: if its results.sqlite is no sound store of this version.
    """
    if not folder.is_dir():
        raise DataError(f"there is no run folder {folder}; name one that a command wrote, such as runs/NAME")
    summary = _read_summary(folder / SUMMARY) if (folder / SUMMARY).exists() else {}
    tables = [_read_table(path, summary) for path in _files(folder, "*.csv")]
    pictures = {path.name: _bytes(path) for path in _files(folder, "*.png")}
    if (folder / STORE).exists():
        with ResultStore(folder / STORE, read_only=True) as store:
            options, sessions, evaluations = store.options, store.environments(), list(store)
        sessions = [{name: str(value) for name, value in session.items()} for session in sessions]
        tables = tables or [_evaluations_table(evaluations)]
        return RunFolder(folder, summary, options, sessions, evaluations, tables, pictures)
    if not (summary or tables or pictures):
        raise DataError(
            f"{folder} is no run folder: it holds none of {STORE}, {SUMMARY}, tables (*.csv) and pictures (*.png)"
        )
    told = summary.get("options")
    return RunFolder(folder, summary, told if isinstance(told, dict) else {}, tables=tables, pictures=pictures)


def runs_in(folder: Path) -> list[Path]:
    """Run folders that lie in ``folder``; none if it is one itself."""
    if not folder.is_dir() or any((folder / name).exists() for name in (STORE, SUMMARY)):
        return []
    return sorted({path.parent for name in (STORE, SUMMARY) for path in folder.glob(f"*/{name}")})


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"cannot read {path}: {error}; move it away, or run the command again")


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, not the settings of a run; move it away")
    return found


def _read_table(path: Path, summary: Mapping[str, Any]) -> html.Table:
    """A csv file; lines on top that begin with # are its note, a ranking is put in its order."""
    try:
        lines = list(io.StringIO(_bytes(path).decode("utf-8-sig", "replace"), newline=""))
        start = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
        header, *rows = [row for row in csv.reader(lines[start:]) if row] or [[]]
    except csv.Error as error:
        raise _unreadable(path, error) from error
    width = max(map(len, (header, *rows)))
    header, *rows = [row + [""] * (width - len(row)) for row in (header, *rows)]
    notes = [line[1:].strip() for line in lines[:start]]
    rank_by = summary.get("rank_by")
    if rank_by in header and "arch" in header:
        rows = _ranked(rows, header.index(rank_by), header.index("arch"), summary.get("winner"))
        notes.append(f"in the order of {rank_by}, best first")
    return html.Table(path.name, header, rows, whole=path.name, note="; ".join(notes))


def _ranked(rows: list[list[str]], by: int, arch: int, winner: object) -> list[list[str]]:
    """Rows by the number in a column, so that the winner comes first; those without a number last."""
    values = [_number(row[by]) for row in rows]
    first = winner.get("arch") if isinstance(winner, dict) else None
    won = [value for row, value in zip(rows, values, strict=True) if row[arch] == first and value is not None]
    lowest = min((value for value in values if value is not None), default=0.0)
    sign = 1.0 if won and won[0] == lowest < max(v for v in values if v is not None) else -1.0
    keys = [(value is None, sign * (value or 0.0), row[arch]) for row, value in zip(rows, values, strict=True)]
    return [row for _, row in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0])]


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _evaluations_table(evaluations: Sequence[Evaluation]) -> html.Table:
    columns = sql.columns(evaluations)
    cells = zip(*columns.values(), strict=True)
    rows = [["" if cell is None else str(cell) for cell in row] for row in cells]
    return html.Table("evaluations", list(columns), rows, whole=STORE, note="no table was written yet")
