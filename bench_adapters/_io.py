"""Reading tables of others; every failure is an error that says which file and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from naswot.errors import DataError, missing_package


def read_parquet(path: Path) -> Mapping[str, NDArray[Any]]:
    """Columns of a parquet file by name, (n,) each.

    Raises:
        MissingPackageError: if pyarrow is not installed.
        DataError: if the file is missing, truncated or no parquet file.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_package("pyarrow", "benchmarks", "reading parquet files") from error
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: it is missing, truncated or no parquet file ({error})") from error
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Content of a JSON file.

    Args:
        path: the file.
        object_hook: what becomes of each object as soon as it is read, so that a long file is never held as it is.
    Raises:
        DataError: if the file is missing, truncated or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=object_hook)
    except (OSError, UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {path}: it is missing, truncated or no JSON ({error})") from error
