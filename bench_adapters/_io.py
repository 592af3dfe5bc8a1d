"""Reading tables of others; every failure is an error that says which file and why."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naswot import _benchmark_file
from naswot.errors import DataError, UnsafePickleError

_REFUSED = re.compile(r"GLOBAL \S+|Trying to call reduce.*|Can only (create|build)[^,\n]*|persistent_load.*")
"""Of torch's message, what a file asks for that is not allowed; without it the file is damaged."""
_DIGEST = re.compile(r"-([0-9a-f]{5,6})\.(?:pth|pickle\.pbz2)")


def check_digest(path: Path) -> None:
    """Compare a file with the end of its MD5 sum that its name tells, as ``NAS-Bench-201-v1_1-096897.pth`` does.

    Names without a digest pass. The folders of NATS-Bench carry that of the single file, so they tell nothing.

    Raises:
        DataError: if the two differ, or the file cannot be read.
    """
    told = _DIGEST.search(path.name)
    if told is None or told.end() != len(path.name):
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not found.endswith(told[1]):
        raise DataError(
            f"{path} is truncated or altered: its md5 ends in {found[-len(told[1]) :]}, its name says {told[1]}; "
            "fetch it again, or take the digest out of its name if it was changed on purpose"
        )


def with_keys(path: Path, content: object, keys: Sequence[str]) -> Mapping[str, Any]:
    """``content`` itself, if it is a mapping that has these keys.

    Raises:
        DataError: if not; it names what is missing and what is there.
    """
    if not isinstance(content, Mapping):
        wanted = f"a mapping with {', '.join(keys)}" if keys else "a mapping"
        raise DataError(f"{path} holds a {type(content).__name__}, but {wanted} was expected")
    missing = [key for key in keys if key not in content]
    if missing:
        there = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise DataError(
            f"{path} has no {', '.join(missing[:4])}, only {there}: it is of another version or another benchmark"
        )
    return content


def read_parquet(path: Path, needs: Sequence[str] = ()) -> Mapping[str, NDArray[Any]]:
    """Columns of a parquet file by name, (n,) each.

    Args:
        path: the file.
        needs: columns without which it is of no use.
    Raises:
        MissingPackageError: if pyarrow is not installed.
        DataError: if the file is missing, truncated, no parquet file or lacks one of those columns.
    """
    return with_keys(path, _benchmark_file.read_parquet(path), needs)


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
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: it is missing, truncated or no JSON ({error})") from error


def read_torch(path: Path) -> Any:
    """Content of a file of ``torch.save`` that holds plain containers and numpy numbers; nothing in it is run.

    Raises:
        UnsafePickleError: if it asks for more than that.
        DataError: if the file is missing, truncated or none of ``torch.save``.
    """
    scalar = np.float64(0).__reduce__()[0]  # the function by which numpy's numbers are pickled
    allowed: list[Any] = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.int64))]
    allowed += [(scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        reason = _REFUSED.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and reason is not None:
            raise UnsafePickleError(
                f"{path} asks for more than plain containers and is not loaded: {reason[0]}; nothing of it was executed"
            ) from None  # torch's own text tells how to run it all the same
        shown = "its pickle is damaged" if isinstance(error, pickle.UnpicklingError) else str(error).partition(". ")[0]
        raise DataError(f"cannot read {path}: it is truncated or no file of torch.save ({shown})") from None
