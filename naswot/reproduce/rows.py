"""Our number beside the paper's: the rows that every table of a reproduction has."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Row:
    """One number of a figure or table.

    Args:
        what: the method or quantity.
        dataset: where its accuracy or images come from.
        split: ``valid``, ``test``, ``train``, or ``-`` where there is none.
        ours: what was found here.
        n: what it rests on: runs, networks or draws, as ``note`` or ``what`` says.
        seed: everything random derives from it.
        sd: standard deviation over the n (n - 1 in the denominator).
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        paper: what the paper prints; None where it prints no number.
        paper_sd: the paper's standard deviation.
        note: what one has to know to compare the two.
    """

    what: str
    dataset: str
    split: str
    ours: float
    n: int
    seed: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    paper_sd: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What an item of a paper gave.

    Args:
        rows: its table.
        pictures: names of the files it drew in the run folder.
        missing: parts that could not be done, with the reason.
        notes: whole sentences on how it was done here.
    """

    rows: tuple[Row, ...] = ()
    pictures: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def mean_and_sd(values: ArrayLike) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1), None for a single value; an infinite value leaves no standard deviation."""
    numbers = np.asarray(values, dtype=np.float64)
    mean = float(numbers.mean())
    return mean, float(numbers.std(ddof=1)) if numbers.size > 1 and np.isfinite(numbers).all() else None


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Rows as CSV, one column for each field of :class:`Row`; unknown values are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
