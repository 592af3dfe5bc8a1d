"""A benchmark as one compact parquet file, whatever its official form."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naswot.errors import DataError, missing_package

if TYPE_CHECKING:
    from naswot.benchmark import Benchmark, Column, Table

SUFFIX = ".naswot.parquet"
_FORMAT = 1


def write(benchmark: Benchmark, path: Path) -> None:
    """Genes as one column of small integers each, figures as float32 where that loses nothing.

    The file appears whole or not at all.
    """
    pyarrow, parquet = _pyarrow()
    about = {
        "format": _FORMAT,
        "naswot": metadata.version("naswot"),
        "benchmark": benchmark.name,
        "space": benchmark.space.name,
        "source": Path(benchmark.source).name,
        "columns": [list(column) for column in benchmark.columns],
        "build": benchmark.build,
        "images": benchmark.images,
    }
    genes = np.array(list(benchmark.genotypes()), dtype=np.uint8 if max(benchmark.space.choices) <= 256 else np.int64)
    names = [f"g{position}" for position in range(genes.shape[1])] + [
        "/".join("" if part is None else str(part) for part in column) for column in benchmark.columns
    ]
    arrays = [pyarrow.array(gene) for gene in genes.T]
    arrays += [pyarrow.array(_narrow(benchmark[column]), from_pandas=False) for column in benchmark.columns]
    table = pyarrow.table(arrays, names=names).replace_schema_metadata({"naswot": json.dumps(about)})
    part = path.with_name(f"{path.name}.part")
    try:
        parquet.write_table(table, part, compression="zstd", write_page_checksum=True)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error


def read(path: Path, space: str) -> Table:
    """The table of such a file.

    Raises:
        DataError: if the file is no sound one of this format and space.
    """
    from naswot.benchmark import Table

    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        table.validate(full=True)
        about = json.loads(table.schema.metadata[b"naswot"])
        columns = [_column(parts) for parts in about["columns"]]
    except (OSError, KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is damaged, or was not written by `naswot benchmark convert` ({error})") from error
    if about.get("format") != _FORMAT or about.get("space") != space:
        raise DataError(
            f"{path} has format {about.get('format')} and space {about.get('space')!r}, but format {_FORMAT} and space "
            f"{space!r} are expected; convert the official file again"
        )
    vectors = [column.to_numpy() for column in table.columns]
    n_genes = len(vectors) - len(columns)
    genes, values = np.stack(vectors[:n_genes], axis=1), vectors[n_genes:]
    known = dict(zip(columns, values, strict=True))
    return Table(genes, known, about.get("build", {}), about.get("images", {}))


def read_parquet(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Columns of any parquet file by name, (n,) each.

    Raises:
        MissingPackageError: if pyarrow is not installed.
        DataError: if the file is missing, truncated or no parquet file.
    """
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
        table.validate(full=True)
        return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: it is missing, truncated or no parquet file ({error})") from error


def _column(parts: Any) -> Column:
    from naswot.benchmark import Column

    column = Column(*parts)
    is_named = isinstance(column.dataset, str) and isinstance(column.metric, str)
    if not (is_named and all(number is None or type(number) is int for number in column[2:])):
        raise ValueError(f"{parts} names no column")
    return column


def _narrow(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    short = values.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), values, equal_nan=True) else values


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_package("pyarrow", "benchmarks", "reading and writing parquet files") from error
    return pyarrow, parquet
