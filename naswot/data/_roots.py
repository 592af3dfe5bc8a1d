"""Where data files lie: an explicit root, or the environment variable NASWOT_DATA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from naswot.errors import DataError

ENVIRONMENT = "NASWOT_DATA"
_HOW = f"point to them with --data-root (root=... in Python) or the environment variable {ENVIRONMENT}"


def base_folder(name: str, root: str | os.PathLike[str] | None) -> Path:
    """The given root, or that of the environment.

    Raises:
        DataError: if there is neither, or it is no folder.
    """
    text = root if root is not None else os.environ.get(ENVIRONMENT)
    if not text:
        raise DataError(f"{name} needs data files and no data root is known: {_HOW}")
    base = Path(text).expanduser()
    if not base.is_dir():
        source = "root" if root is not None else ENVIRONMENT
        raise DataError(f"{name}: the data root {base} (from {source}) is no folder: {_HOW}")
    return base


def find_files(
    name: str, root: str | os.PathLike[str] | None, *, folders: Sequence[str], files: Sequence[str]
) -> list[Path]:
    """Those of ``files`` that exist, in order, from the first place that has any.

    Args:
        name: the data set, for messages.
        root: the data root, or None for that of the environment.
        folders: what the official archive calls its folder; looked up in the root and in its ``images``.
        files: names of the files.
    Raises:
        DataError: if none is found; it names the files and every place.
    """
    base = base_folder(name, root)
    inside = [base / folder for folder in folders] + [base / "images" / folder for folder in folders]
    places = [base, *inside, base / "images"]
    for place in places:
        found = [place / file for file in files if (place / file).is_file()]
        if found:
            return found
    wanted, looked = ", ".join(files), ", ".join(str(place) for place in places)
    raise DataError(f"{name}: no file {wanted} was found in {looked}; {_HOW}")
