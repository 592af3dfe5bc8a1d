"""Results of one run in one SQLite file: append, merge, read back, export."""

from __future__ import annotations

import csv
import json
import os
import platform
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from naswot import _store_sqlite as sql
from naswot._store_sqlite import APPLICATION_ID, SCHEMA
from naswot.errors import OptionError, StoreError, StoreSchemaError, missing_package
from naswot.types import Evaluation

if TYPE_CHECKING:
    import pandas as pd

_PAGE = 1000  # evaluations read at once by __iter__


def describe_environment(device: torch.device | str | None = None) -> dict[str, str]:
    """Versions, machine and start time of this process, for the provenance row of a store.

    Args:
        device: where the models are evaluated, if known.
    """
    on_gpu = device is not None and torch.device(device).type == "cuda" and torch.cuda.is_available()
    try:
        version = metadata.version("naswot")
    except metadata.PackageNotFoundError:  # a copy of the sources that was never installed
        version = "unknown"
    return {
        "naswot": version,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "device": "unknown" if device is None else str(torch.device(device)),
        "device_name": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class ResultStore:
    """Evaluations of one run in one SQLite file, keyed by (arch, seed, repeat).

    Each ``append`` is one durable transaction: after ``kill -9`` an evaluation is there completely or not at all.
    Several processes may hold one store open: they write in turn, and read while one writes. An object belongs to the
    thread and process that made it; open another one elsewhere. SQLite's write-ahead log needs a local file system.

    Args:
        path: the file; it and its parent folders are created.
        options: all that determines the numbers (space, data, taps, batch digest ...), as JSON-able values. A store
            is bound to its options: opening it with others is refused. None is allowed with ``read_only``.
        environment: provenance of this session, added to ``environments()`` unless ``read_only`` and never compared;
            by default ``describe_environment()``.
        read_only: leave the file as it is; works in a read-only folder too.
        busy_timeout: seconds to wait while another process writes.
    Raises:
        StoreError: if the file is no store, damaged, locked, not writable or made with other options.
        StoreSchemaError: if it has another schema number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        options: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        read_only: bool = False,
        busy_timeout: float = 10.0,
    ) -> None:
        if options is None and not read_only:
            raise OptionError("a result store is opened for writing with the options of the run; pass options=...")
        self.path = Path(path)
        self._timeout = busy_timeout
        self._owner = (os.getpid(), threading.get_ident())
        self._connection: sqlite3.Connection | None = None
        text = None if options is None else sql.canonical_json(options)
        session = dict(describe_environment() if environment is None else environment)
        try:
            self._open(read_only)
            with self._transaction("DEFERRED" if read_only else "IMMEDIATE") as connection:
                self._verify(connection, text, read_only)
                self.options, self.digest = self._bind(connection, text)
                if not read_only:
                    connection.execute("INSERT INTO environments (description) VALUES (?)", (json.dumps(session),))
            if not read_only:
                with self._explained():
                    sql.use_write_ahead_log(connection, self._timeout)
        except BaseException:
            self.close()
            raise

    def _open(self, read_only: bool) -> None:
        if read_only and not os.path.exists(self.path):
            raise StoreError(f"there is no result store {self.path}; check the path, or open it without read_only")
        try:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder of result store {self.path} ({error}); choose another") from error
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        with self._explained():
            try:
                self._connect(uri)
            except sqlite3.OperationalError as error:
                wal = f"{self.path}-wal"
                no_room = sql.code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                if not (read_only and no_room) or (os.path.exists(wal) and os.path.getsize(wal)):
                    raise
                self._connect(f"{uri}&immutable=1")  # a closed store in a read-only folder: no log, and no room for one

    def _connect(self, uri: str) -> None:
        self.close()
        self._connection = sqlite3.connect(uri, uri=True, timeout=self._timeout, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("SELECT count(*) FROM sqlite_master")

    def _verify(self, connection: sqlite3.Connection, options: str | None, read_only: bool) -> None:
        """Refuse what is no sound store of this schema; make the tables in an empty file."""
        queries = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        application, version, n_tables = (connection.execute(query).fetchone()[0] for query in queries)
        used = application or version or n_tables
        if application == APPLICATION_ID:
            if version != SCHEMA:
                raise StoreSchemaError(
                    f"result store {self.path} has schema number {version}, but this naswot expects {SCHEMA}; "
                    "open it with the version of naswot that wrote it, or choose another folder"
                )
            fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if fault != "ok":
                raise StoreError(f"result store {self.path} {sql.DAMAGED.format(error=' '.join(fault.split()))}")
        elif used or read_only:
            kind = "a SQLite database of another program" if used else "empty"
            raise StoreError(f"{self.path} is {kind}, not a result store; choose another path")
        else:
            for statement in sql.TABLES:
                connection.execute(statement)
            connection.execute("INSERT INTO run VALUES (?, ?)", (options, sql.digest(options or "")))

    def _bind(self, connection: sqlite3.Connection, options: str | None) -> tuple[dict[str, Any], str]:
        """Read the options of the store and their digest; refuse other ones."""
        text, digest = connection.execute("SELECT options, digest FROM run").fetchone()
        stored = json.loads(text)
        if options is not None and sql.digest(options) != digest:
            changes = sql.differences(stored, json.loads(options))
            raise StoreError(
                f"result store {self.path} holds results of other options ({'; '.join(changes)}); "
                "choose another folder for these options, or give the old ones"
            )
        return stored, digest

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._connection is not None:
            with self._explained():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into a StoreError that says what to do."""
        if self._owner != (os.getpid(), threading.get_ident()):
            raise StoreError(f"result store {self.path} was opened in another thread or process; open it again here")
        try:
            yield
        except (sqlite3.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"result store {self.path} {sql.explain(error, self._timeout)}") from error

    @contextmanager
    def _transaction(self, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
        """All of the block is stored, or nothing."""
        connection = self._connection
        if connection is None:
            raise StoreError(f"result store {self.path} is closed; open it again")
        with self._explained():
            try:
                connection.execute(f"BEGIN {kind}")
                yield connection
                connection.execute("COMMIT")
            finally:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")

    def append(self, evaluation: Evaluation) -> None:
        """Store one evaluation, merged with what its key (arch, seed, repeat) already has.

        New score names are added; the same name must have the same value to the last bit. A score replaces the
        failure of its name, and any success the error of its key. So that the order of appends leaves no trace, a
        stage keeps its longest time, and of two texts (error, reason) the first in alphabetical order stays.

        Raises:
            InputError: if a score is NaN, a time not finite, a name or key not storable, or an error comes with scores.
            StoreError: if a stored score has another value, or the store cannot be written.
        """
        new = sql.plain(evaluation)
        with self._transaction("IMMEDIATE") as connection:
            old = sql.find(connection, (new.arch, new.seed, new.repeat))
            merged = new if old is None else sql.merge(old, new, self.path)
            if merged != old:
                sql.write(connection, merged)

    def get(self, arch: str, seed: int, repeat: int = 0) -> Evaluation | None:
        """Look up the evaluation of a key; None if there is none."""
        key = sql.plain_key(arch, seed, repeat)
        with self._transaction() as connection:
            return sql.find(connection, key)

    def __contains__(self, key: sql.Key) -> bool:
        return self.get(*key) is not None

    def __len__(self) -> int:
        with self._transaction() as connection:
            return int(connection.execute("SELECT count(*) FROM evaluations").fetchone()[0])

    def __iter__(self) -> Iterator[Evaluation]:
        """Iterate in order of (arch, seed, repeat), page by page: appending meanwhile is fine."""
        last: sql.Key | None = None
        while True:
            with self._transaction() as connection:
                page = sql.page(connection, last, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last = (page[-1].arch, page[-1].seed, page[-1].repeat)

    def environments(self) -> list[dict[str, str]]:
        """Provenance of every session that opened the store for writing, oldest first."""
        with self._transaction() as connection:
            found = connection.execute("SELECT description FROM environments ORDER BY id")
            return [json.loads(description) for (description,) in found]

    def to_frame(self) -> pd.DataFrame:
        """Table with columns arch, seed, repeat, one per score, ``seconds.*``, error and reasons (JSON).

        A score or time that is missing is NaN; the reason stands in ``reasons``.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise missing_package("pandas", "pandas", "ResultStore.to_frame") from error
        table = sql.columns(self)
        numbers = [name for name in table if name not in ("arch", "seed", "repeat", "error", "reasons")]
        types = dict.fromkeys(numbers, "float64") | {"seed": "int64", "repeat": "int64"}
        return pd.DataFrame(table).astype(types)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write all evaluations as text, by the ending of ``path``: ``.csv`` or ``.jsonl``.

        CSV has the columns of ``to_frame``, ``-inf`` as such and missing values empty. JSON lines have null and a
        ``status`` (``-inf``, ``+inf``, ``failed``) for each score that is not finite.
        """
        target = Path(path)
        if target.suffix not in (".csv", ".jsonl"):
            raise OptionError(f"results are exported as .csv or .jsonl, but got {str(target)!r}")
        evaluations = list(self)
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                if target.suffix == ".csv":
                    table = sql.columns(evaluations)
                    csv.writer(file, lineterminator="\n").writerows([list(table), *zip(*table.values(), strict=True)])
                else:
                    file.writelines(json.dumps(sql.record(e), allow_nan=False) + "\n" for e in evaluations)
            part.replace(target)
        except OSError as error:
            raise StoreError(f"cannot write {target} ({error}); choose another file") from error
