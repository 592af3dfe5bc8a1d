"""Trained results of architectures: what a benchmark knows, how it is asked, where its files are found."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naswot import _benchmark_file
from naswot.data._roots import base_folder
from naswot.errors import (
    ArchitectureError,
    DataError,
    MissingPackageError,
    OptionError,
    RegistrationError,
    UnsafePickleError,
    unknown_name,
)
from naswot.registry import Registry
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype

LOWER_IS_BETTER = ("error", "seconds", "loss", "latency", "energy", "params", "flops")
"""Words in the name of a metric of which less is better."""


class Column(NamedTuple):
    """What one column of a benchmark holds.

    Args:
        dataset: such as ``"cifar10"``.
        metric: such as ``"test_accuracy"`` (percent), ``"valid_accuracy"``, ``"train_seconds"``, ``"params"``.
        epochs: length of the training, where there are several.
        seed: number of the training, from 0; None for a mean over trainings, or what does not depend on one.
    """

    dataset: str
    metric: str
    epochs: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Table:
    """What an adapter reads from files.

    Args:
        genotypes: n architectures of the space, or their genes as an (n, L) array.
        columns: (n,) numbers each; NaN where an architecture was not trained.
        build: options of ``space.build`` with which the networks were trained, where they are not its defaults, such as
            ``{"width": 8}``; number of classes and channels of the images stand beside them.
        images: what they were trained on, where naswot has it: ``data``, a name for :func:`naswot.data.get_data`, and
            options of that function, such as ``{"data": "digits", "size": 16, "noise": 1.0}``; empty if not known.
    """

    genotypes: Sequence[Genotype] | NDArray[np.integer]
    columns: Mapping[Column, ArrayLike]
    build: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)


class Benchmark:
    """Trained results of architectures of one space, held in memory.

    ``build`` and ``images`` are those of the table: they say which networks were trained, on what.

    Args:
        name: the benchmark.
        space: what its genotypes mean.
        table: genotypes and columns.
        source: where it was read from.
    Raises:
        DataError: if the table contradicts itself.
    """

    def __init__(self, name: str, space: SearchSpace, table: Table, *, source: str = "memory") -> None:
        self.name, self.space, self.source = name, space, source
        self.build, self.images = dict(table.build), dict(table.images)
        genes = np.asarray(table.genotypes)
        if genes.ndim != 2 or genes.shape[1] != len(space.choices) or len(genes) == 0:
            wanted = f"(n, {len(space.choices)})"
            raise DataError(f"{source}: expected genotypes of {space.name} as {wanted}, but got {genes.shape}")
        if not np.issubdtype(genes.dtype, np.integer):
            raise DataError(f"{source}: expected genotypes of integers, but got {genes.dtype}")
        if genes.min() < 0 or (genes >= np.array(space.choices)).any():
            raise DataError(f"{source}: a genotype lies outside the choices {space.choices} of {space.name}")
        self._genes = genes.astype(np.uint8 if max(space.choices) <= 256 else np.int64)
        self._columns = {c: _vector(c, values, len(genes), source) for c, values in table.columns.items()}
        self._asked: dict[tuple[str, str, int | None], list[Column]] = {}
        self._rows = {row.tobytes(): number for number, row in enumerate(self._genes)}
        if len(self._rows) != len(genes):
            raise DataError(f"{source}: {len(genes) - len(self._rows):,} architectures occur twice")
        if not table.columns:
            raise DataError(f"{source} holds no column of results that {name} knows; it is of another version")

    def __len__(self) -> int:
        return len(self._genes)

    def __contains__(self, genotype: object) -> bool:
        return isinstance(genotype, tuple) and self.space.is_valid(genotype) and self.row(genotype) is not None

    def __getitem__(self, column: Column) -> NDArray[np.float64]:
        """Exactly that column of ``columns``, (n,) float64."""
        return self._columns[column].astype(np.float64)

    def __repr__(self) -> str:
        return f"<Benchmark {self.name}: {len(self):,} architectures of {self.space.name}, {', '.join(self.datasets)}>"

    def genotypes(self) -> Iterator[Genotype]:
        """The architectures, in the order of every column."""
        return (tuple(map(int, row)) for row in self._genes)

    def row(self, genotype: Genotype) -> int | None:
        """Place of an architecture in every column, under whichever spelling it is filed; None if it is not held."""
        for spelling in self.space.spellings(genotype):
            row = self._rows.get(np.array(spelling).astype(self._genes.dtype).tobytes())
            if row is not None:
                return row
        return None

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns there are."""
        return tuple(self._columns)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets, in the order of the source."""
        return tuple(dict.fromkeys(column.dataset for column in self._columns))

    def metrics(self, dataset: str) -> tuple[str, ...]:
        """What is known on a data set."""
        self._check(dataset, None)
        return tuple(dict.fromkeys(column.metric for column in self._columns if column.dataset == dataset))

    def seeds(self, dataset: str, metric: str = "test_accuracy", *, epochs: int | None = None) -> tuple[int, ...]:
        """Numbers of the trainings that are told apart; empty if only their mean is known."""
        return tuple(c.seed for c in self._matching(dataset, metric, epochs) if c.seed is not None)

    def column(
        self, dataset: str, metric: str = "test_accuracy", *, epochs: int | None = None, seed: int | None = None
    ) -> NDArray[np.float64]:
        """One number for each architecture, (n,) float64; NaN where it is not known.

        Args:
            dataset: the data set.
            metric: what is asked.
            epochs: length of the training; None: the longest.
            seed: one training; None: the mean over all, as the source gives it or else over the known ones.
        Raises:
            UnknownNameError: if the benchmark has no such data set or metric.
            DataError: if it has no such training.
        """
        found = self._matching(dataset, metric, epochs)
        chosen = [c for c in found if c.seed == seed]
        if chosen:
            return self[chosen[0]]
        if seed is not None:
            known = ", ".join(str(c.seed) for c in found if c.seed is not None) or "only the mean"
            raise DataError(f"{self.name} has no training {seed} of {metric} on {dataset}; there are: {known}")
        values = np.stack([self[c] for c in found])
        known_values = ~np.isnan(values)
        totals, counts = np.where(known_values, values, 0.0).sum(axis=0), known_values.sum(axis=0)
        means: NDArray[np.float64] = np.divide(totals, counts, out=np.full(len(self), np.nan), where=counts > 0)
        return means

    def query(
        self,
        genotype: Genotype,
        *,
        dataset: str,
        metric: str = "test_accuracy",
        epochs: int | None = None,
        seed: int | None = None,
    ) -> float:
        """The same for one architecture.

        Raises:
            ArchitectureError: if the benchmark does not hold it.
        """
        row = self.row(self.space.check(genotype))
        if row is None:
            raise ArchitectureError(f"{self.name} has no result of {self.space.format(genotype)}")
        found = self._matching(dataset, metric, epochs)
        exact = [c for c in found if c.seed == seed]
        if not exact and seed is not None:
            self.column(dataset, metric, epochs=epochs, seed=seed)  # says what there is
        values = [float(self._columns[c][row]) for c in exact or found]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as one compact parquet file, which :func:`get_benchmark` reads in a moment.

        Raises:
            OptionError: if the name does not end in ``.naswot.parquet``.
            MissingPackageError: if pyarrow is not installed.
            DataError: if it cannot be written.
        """
        if not str(path).endswith(_benchmark_file.SUFFIX):
            raise OptionError(f"expected a file name that ends in {_benchmark_file.SUFFIX}, but got {str(path)!r}")
        _benchmark_file.write(self, Path(path))

    def _check(self, dataset: str, metric: str | None) -> None:
        if dataset not in self.datasets:
            raise unknown_name(f"data set of {self.name}", dataset, self.datasets)
        if metric is not None and metric not in self.metrics(dataset):
            raise unknown_name(f"metric of {self.name} on {dataset}", metric, self.metrics(dataset))

    def _matching(self, dataset: str, metric: str, epochs: int | None) -> list[Column]:
        """Columns of a data set and metric, of one length of training."""
        asked = dataset, metric, epochs
        if asked not in self._asked:
            self._asked[asked] = self._search(*asked)
        return self._asked[asked]

    def _search(self, dataset: str, metric: str, epochs: int | None) -> list[Column]:
        self._check(dataset, metric)
        found = [c for c in self._columns if (c.dataset, c.metric) == (dataset, metric)]
        lengths = {c.epochs for c in found}
        if epochs is None:
            longest = max((length for length in lengths if length is not None), default=None)
            return [c for c in found if c.epochs == longest]
        if epochs not in lengths:
            known = ", ".join(str(length) for length in sorted(filter(None, lengths))) or "one length, not told"
            raise DataError(f"{self.name} has no {metric} on {dataset} after {epochs} epochs; there are: {known}")
        return [c for c in found if c.epochs == epochs]


def _vector(column: Column, values: ArrayLike, n: int, source: str) -> NDArray[np.floating]:
    try:
        vector = np.asarray(values)
        if vector.dtype not in (np.float32, np.float64):
            vector = vector.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{source}: column {tuple(column)} does not hold numbers ({error})") from error
    if vector.shape != (n,):
        raise DataError(f"{source}: column {tuple(column)} has shape {vector.shape} for {n} architectures")
    return vector


# ----------------------------------------------------------------------------------------------------------- adapters

Reader = Callable[[Path], Table]


@dataclass(frozen=True)
class Adapter:
    """How a benchmark's files are found and read.

    Args:
        name: that of the benchmark and of the reader.
        read: reads one of the files, or a folder of files.
        space: name of the space.
        files: patterns of file or folder names that it reads, the best first.
        folders: where they lie below the data root.
        reference: the paper.
        embedded: the file that comes with the adapter, if one does; no data root is asked for then.
    """

    name: str
    read: Reader
    space: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    reference: str
    embedded: Path | None = None

    @property
    def summary(self) -> str:
        """First line of the reader's docstring."""
        return (inspect.getdoc(self.read) or "").partition("\n")[0]

    def find(self, root: str | os.PathLike[str] | None) -> Path:
        """A converted file, or else the best of the files below a data root; ``root`` itself where it is one of them.

        What is embedded needs no data root.

        Raises:
            DataError: if there is none; it names what it looked for and where.
        """
        given = None if root is None else Path(root).expanduser()
        patterns = (f"{self.name}{_benchmark_file.SUFFIX}", *self.files)
        if given is not None and any(given.match(pattern) for pattern in (f"*{_benchmark_file.SUFFIX}", *self.files)):
            return given
        if self.embedded is not None:
            return self.embedded
        base = base_folder(f"the benchmark {self.name}", given)
        places = [base, *(base / folder for folder in self.folders)]
        for pattern in patterns:
            for place in places:
                found = sorted(place.glob(pattern))
                if found:
                    return found[0]
        looked = ", ".join(map(str, places))
        raise DataError(f"{self.name}: none of {', '.join(self.files)} was found in {looked}")

    def open(self, root: str | os.PathLike[str] | None = None) -> Benchmark:
        """The benchmark, read from the best file there is.

        Raises:
            DataError: if there is no file, or it is truncated, of another version, or none of this benchmark.
            UnsafePickleError: if a pickle asks for more than plain containers and numbers; nothing of it is run.
        """
        path = self.find(root)
        try:
            converted = path.name.endswith(_benchmark_file.SUFFIX)
            table = _benchmark_file.read(path, self.space) if converted else self.read(path)
            return Benchmark(self.name, get_space(self.space), table, source=str(path))
        except (DataError, UnsafePickleError, MissingPackageError):
            raise
        except Exception as error:  # what a damaged table holds can break a reader anywhere
            raise DataError(
                f"{path} is no sound file of {self.name}: it is damaged or of another version "
                f"({type(error).__name__}: {error})"
            ) from error


benchmarks: Registry[Adapter] = Registry("benchmark", "naswot.benchmarks", "naswot benchmark list")


def register_benchmark(
    *, space: str, files: Sequence[str] = (), folders: Sequence[str] = (), reference: str, embedded: str | None = None
) -> Callable[[Reader], Reader]:
    """Decorator that makes a function from a path to a :class:`Table` a benchmark under its own name.

    Args:
        space: name of the space of its genotypes.
        files: patterns of the names of files or folders that the function reads, the best first; an embedded file's
            name follows by itself.
        folders: where they lie below the data root; by default in one with the benchmark's name.
        reference: paper and year.
        embedded: a file beside the function's module, as a path from there; it is read wherever the data root is.
    """

    def decorate(read: Reader) -> Reader:
        name = read.__name__
        if not inspect.getdoc(read):
            raise RegistrationError(f"benchmark {name!r} has no docstring; its first line is what lists show")
        places = tuple(folders) or (name, f"{name}/original")
        own = None if embedded is None else Path(inspect.getfile(read)).parent / embedded
        patterns = tuple(files) if own is None else (*files, own.name)
        benchmarks.register(name, Adapter(name, read, space, patterns, places, reference, own))
        return read

    return decorate


def get_benchmark(name: str, root: str | os.PathLike[str] | None = None) -> Benchmark:
    """The benchmark of that name.

    Args:
        name: such as ``"nasbench201"``; or a file that ``naswot benchmark`` wrote, NAME.naswot.csv.gz or .parquet.
        root: the file, or the folder with the data; by default that of the environment variable NASWOT_DATA.
    """
    from naswot import benchmark_csv

    if name.endswith(_benchmark_file.SUFFIX):
        return get_benchmark(Path(name).name.removesuffix(_benchmark_file.SUFFIX), name)
    if name.endswith(benchmark_csv.SUFFIX):
        return benchmark_csv.open_csv(name)
    return benchmarks.get(name).open(root)


def list_benchmarks(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the installed benchmarks."""
    return benchmarks.names(pattern, without=without)
