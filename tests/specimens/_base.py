"""What a specimen is, and what they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from naswot.benchmark import benchmarks, get_benchmark, list_benchmarks
from naswot.data import get_data
from naswot.seeding import torch_generator
from naswot.space import get_space, list_spaces


@dataclass(frozen=True)
class Specimen:
    """A kind of file of one reader."""

    reader: str
    kind: str
    write: Callable[[Path], Path]
    read: Callable[[Path], object]

    def __str__(self) -> str:
        return f"{self.reader}-{self.kind}"


SPECIMENS: list[Specimen] = []


def of_benchmark(reader: str, kind: str) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Decorator: a file of benchmark ``reader``, if that is installed."""

    def add(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        if reader in list_benchmarks() and benchmarks.get(reader).space in list_spaces():
            SPECIMENS.append(Specimen(reader, kind, write, lambda path: read_benchmark(reader, path)))
        return write

    return add


def of_images(reader: str, kind: str, **options: Any) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Decorator: a file of data set ``reader``."""

    def add(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        SPECIMENS.append(Specimen(reader, kind, write, lambda path: read_images(reader, path, **options)))
        return write

    return add


def read_benchmark(name: str, path: Path) -> object:
    """The benchmark, with every column and one query looked at."""
    benchmark = get_benchmark(name, path)
    genotype = next(benchmark.genotypes())
    assert benchmark.space.is_valid(genotype)
    for column in benchmark.columns:
        assert benchmark[column].shape == (len(benchmark),)
        assert isinstance(benchmark.query(genotype, dataset=column.dataset, metric=column.metric), float)
    return benchmark


def read_images(name: str, path: Path, **options: Any) -> object:
    """The data set, with one batch drawn."""
    images = get_data(name, root=path if path.is_dir() else path.parent, **options)
    assert images.batch(1, generator=torch_generator(0)).inputs.isfinite().all()
    return images


def converted(name: str, folder: Path) -> Path:
    """What ``naswot benchmark convert`` makes of a benchmark's table, or else of its first specimen."""
    kinds = {s.kind: s for s in SPECIMENS if s.reader == name}
    before = kinds.get("parquet", next(iter(kinds.values())))
    path = folder / f"{name}.naswot.parquet"
    (folder / "before").mkdir()
    get_benchmark(name, before.write(folder / "before")).save(path)
    return path


def cells(name: str, n: int) -> list[tuple[int, ...]]:
    """Every k-th genotype of a space, ``n`` in all."""
    space = get_space(name)
    every = space.size // n
    return [genotype for number, genotype in enumerate(space.genotypes()) if number % every == 0][:n]


def strings(name: str, n: int) -> list[str]:
    return [get_space(name).format(genotype) for genotype in cells(name, n)]


def write_parquet(path: Path, **columns: Any) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def values(n: int, low: float = 10.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return low + np.sqrt(np.arange(n))
