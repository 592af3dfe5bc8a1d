"""Files that are either old or new, never half."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Somewhere beside ``path`` to write to; on leaving the file takes the place of ``path``, after an error it goes.

    Several processes, and several machines that share a folder, may write the same file at a time: each writes to a
    name of its own, and the last to leave wins.

    Args:
        path: of the file, in a folder that exists.
    Raises:
        OSError: if nothing was written, or it cannot take the place of ``path``.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # what went wrong before says more
            part.unlink(missing_ok=True)
