"""What to do after each epoch of a training: write a table, feed TensorBoard, or several of these."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from naswot._files import whole_file
from naswot.errors import missing_package
from naswot.training.devices import OnEpoch


def each_of(*callbacks: OnEpoch) -> OnEpoch:
    """One callback that calls several, in order."""

    def call(epoch: int, metrics: Mapping[str, float]) -> None:
        for callback in callbacks:
            callback(epoch, metrics)

    return call


def write_history(path: Path, history: Iterable[Mapping[str, float]]) -> None:
    """Write what epochs measured as a table, a row for each and a column for each quantity."""
    rows = [{name: int(value) if name == "epoch" else value for name, value in row.items()} for row in history]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def csv_history(path: Path) -> OnEpoch:
    """A callback that keeps a table of all epochs; rows of earlier sessions stay, those that are done again go.

    Args:
        path: see :func:`write_history`.
    """

    def call(epoch: int, metrics: Mapping[str, float]) -> None:
        write_history(path, [*(row for row in read_history(path) if row["epoch"] < epoch), metrics])

    return call


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of :func:`write_history`; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]


@contextmanager
def tensorboard_history(folder: Path) -> Iterator[OnEpoch]:
    """A callback that writes each quantity, by epoch, where ``tensorboard --logdir`` reads it.

    Args:
        folder: of the event files.
    Raises:
        MissingPackageError: if tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_package("tensorboard", "tensorboard", "writing for TensorBoard") from error
    writer = SummaryWriter(str(folder))

    def call(epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "epoch":
                writer.add_scalar(name, value, epoch)
        writer.flush()

    try:
        yield call
    finally:
        writer.close()
