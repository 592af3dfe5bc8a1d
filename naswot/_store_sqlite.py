"""SQLite side of ``naswot.store``: tables, evaluations as rows, options as JSON, errors in words."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import operator
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from naswot.errors import InputError, OptionError, StoreError
from naswot.types import Evaluation

SCHEMA = 1
"""Number of the table layout below; a change of it needs a new number and an old file in ``tests/data``."""

APPLICATION_ID = 0x4E415357
"""``NASW``: tells result stores from any other SQLite database."""

TABLES = (
    "CREATE TABLE run (options TEXT NOT NULL, digest TEXT NOT NULL)",
    "CREATE TABLE environments (id INTEGER PRIMARY KEY, description TEXT NOT NULL)",
    "CREATE TABLE evaluations (id INTEGER PRIMARY KEY, arch TEXT NOT NULL, seed INTEGER NOT NULL,"
    " repeat INTEGER NOT NULL, genotype TEXT NOT NULL, seconds TEXT NOT NULL, error TEXT,"
    " UNIQUE (arch, seed, repeat))",
    # `value` has no declared type: a REAL column would turn -0.0 into 0.0.
    "CREATE TABLE scores (evaluation INTEGER NOT NULL REFERENCES evaluations (id), name TEXT NOT NULL, value,"
    " status TEXT NOT NULL CHECK (status IN ('finite', '-inf', '+inf', 'failed')), reason TEXT,"
    " CHECK (typeof(value) = CASE status WHEN 'finite' THEN 'real' ELSE 'null' END),"
    " PRIMARY KEY (evaluation, name)) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA}",
)

Key = tuple[str, int, int]
"""(arch, seed, repeat) of an evaluation."""

_READ_ONLY = "make them writable, choose another folder, or open it with read_only=True"
DAMAGED = "is damaged ({error}); save what `sqlite3 FILE .recover` still reads, and choose another folder to go on"
_MEANINGS = {  # by SQLite's primary result code
    sqlite3.SQLITE_NOTADB: "is not a SQLite file, or its header is damaged; choose another path or move that file away",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_BUSY: "is locked: another process writes to it, and did so for {timeout:g} s; wait until it ends, "
    "raise busy_timeout, or choose another folder",
    sqlite3.SQLITE_READONLY: f"cannot be written, the file or its folder is read-only; {_READ_ONLY}",
    sqlite3.SQLITE_CANTOPEN: f"cannot be opened, it must be a file and its folder writable; {_READ_ONLY}",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full ({error}); free some space and append again: "
    "all that was stored before is kept",
    sqlite3.SQLITE_IOERR: "cannot be read or written ({error}: disk failing, quota or file size limit reached?); "
    "make space or choose another folder: all that was stored before is kept",
}
_SELECT = (
    "SELECT e.arch, e.seed, e.repeat, e.genotype, e.seconds, e.error, s.name, s.value, s.status, s.reason"
    " FROM (SELECT * FROM evaluations {where} ORDER BY arch, seed, repeat LIMIT ?) AS e"
    " LEFT JOIN scores AS s ON s.evaluation = e.id ORDER BY e.arch, e.seed, e.repeat, s.name"
)
_INFINITE = {"-inf": -math.inf, "+inf": math.inf}
_RESERVED = frozenset({"", "arch", "seed", "repeat", "error", "reasons"})  # the other columns of a table of results


def status(score: float | None) -> str:
    """Status of a score in the tables: ``finite``, ``-inf``, ``+inf``, or ``failed`` where there is none."""
    if score is None:
        return "failed"
    return "finite" if math.isfinite(score) else f"{score:+}"


def plain_key(arch: str, seed: int, repeat: int) -> Key:
    """Key in plain Python types: SQLite would take a numpy integer for bytes, and find nothing."""
    key = str(arch), operator.index(seed), operator.index(repeat)
    if not all(-(2**63) <= number < 2**63 for number in key[1:]):
        raise InputError(f"seed and repeat are stored in 64 bits, but got seed {seed} and repeat {repeat} of {arch!r}")
    return key


def plain(evaluation: Evaluation) -> Evaluation:
    """Copy an evaluation in plain Python types, mappings in order of their names; refuses what cannot be stored."""
    arch, seed, repeat = plain_key(evaluation.arch, evaluation.seed, evaluation.repeat)
    scores = {name: float(value) for name, value in sorted(evaluation.scores.items())}
    seconds = {stage: float(value) for stage, value in sorted(evaluation.seconds.items())}
    reasons = {name: _encodable(text) for name, text in sorted(evaluation.reasons.items())}
    for name, score in scores.items():
        if math.isnan(score):
            raise InputError(
                f"score {name!r} of {arch!r} is NaN; store a number or -inf, or leave it out and say why in reasons"
            )
    for stage, value in seconds.items():
        if not math.isfinite(value):
            raise InputError(
                f"seconds of stage {stage!r} of {arch!r} are {value}; give a finite number or leave it out"
            )
    for name in (*scores, *reasons):
        if name in _RESERVED or name.startswith("seconds."):
            raise InputError(f"a score cannot be named {name!r}, a column of the table of results; rename the proxy")
    for text in (arch, *scores, *reasons, *seconds):
        if text != _encodable(text):
            raise InputError(f"{text!r} cannot be stored as UTF-8; remove the lone surrogates")
    if evaluation.error is not None and scores:
        raise InputError(f"the evaluation of {arch!r} has both scores and an error; say in reasons what is missing")
    genotype = tuple(operator.index(choice) for choice in evaluation.genotype)
    error = None if evaluation.error is None else _encodable(evaluation.error)
    return Evaluation(genotype, arch, scores, seconds, seed, repeat, reasons, error)


def _encodable(text: str) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode()


def merge(old: Evaluation, new: Evaluation, path: str | os.PathLike[str]) -> Evaluation:
    """Both evaluations of one key in one; the result does not depend on which came first.

    Args:
        old: what the store has.
        new: what comes in.
        path: the store, for the message.
    Raises:
        StoreError: if they have another genotype, or another value of the same score.
    """
    where = f"{old.arch!r}, seed {old.seed}, repeat {old.repeat} in result store {path}"
    if old.genotype != new.genotype:
        raise StoreError(
            f"{where} has genotype {old.genotype}, but now comes with {new.genotype}; "
            "a space must format different genotypes differently"
        )
    for name in sorted(old.scores.keys() & new.scores.keys()):
        before, after = old.scores[name], new.scores[name]
        if before.hex() != after.hex():
            raise StoreError(
                f"score {name!r} of {where} is {before!r}, but now came out as {after!r}; "
                "it is not deterministic, or versions changed: choose another folder for new results"
            )
    seconds = {
        stage: max(side.seconds[stage] for side in (old, new) if stage in side.seconds)
        for stage in sorted(old.seconds.keys() | new.seconds.keys())
    }
    scores = dict(sorted({**old.scores, **new.scores}.items()))
    errors = [side.error for side in (old, new) if side.error is not None]
    return dataclasses.replace(
        old,
        scores=scores,
        seconds=seconds,
        reasons=_merge_reasons(old, new),
        error=min(errors) if len(errors) == 2 else None,
    )


def _merge_reasons(old: Evaluation, new: Evaluation) -> dict[str, str]:
    """Reasons of both; why a score failed no longer counts once there is a score."""
    reasons = {}
    for name in sorted(old.reasons.keys() | new.reasons.keys()):
        sources = [side for side in (old, new) if name in side.scores] or [old, new]
        texts = [side.reasons[name] for side in sources if name in side.reasons]
        if texts:
            reasons[name] = min(texts)
    return reasons


def write(connection: sqlite3.Connection, evaluation: Evaluation) -> None:
    """Insert the evaluation, or replace the one of its key, of which it keeps all names."""
    key = (evaluation.arch, evaluation.seed, evaluation.repeat)
    seconds = json.dumps(dict(evaluation.seconds), sort_keys=True)
    connection.execute(
        "INSERT INTO evaluations (arch, seed, repeat, genotype, seconds, error) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (arch, seed, repeat) DO UPDATE SET seconds = excluded.seconds, error = excluded.error",
        (*key, json.dumps(evaluation.genotype), seconds, evaluation.error),
    )
    (row,) = connection.execute("SELECT id FROM evaluations WHERE (arch, seed, repeat) = (?, ?, ?)", key).fetchone()
    rows = []
    for name in sorted(evaluation.scores.keys() | evaluation.reasons.keys()):
        score = evaluation.scores.get(name)
        value = score if status(score) == "finite" else None
        rows.append((row, name, value, status(score), evaluation.reasons.get(name)))
    connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)", rows)


def find(connection: sqlite3.Connection, key: Key) -> Evaluation | None:
    """Look up the evaluation of ``key``; None if there is none."""
    rows = connection.execute(_SELECT.format(where="WHERE (arch, seed, repeat) = (?, ?, ?)"), (*key, 1))
    return next(iter(_evaluations(rows)), None)


def page(connection: sqlite3.Connection, after: Key | None, size: int) -> list[Evaluation]:
    """Read the next ``size`` evaluations in order of keys, from the first or ``after`` a key on."""
    where = "" if after is None else "WHERE (arch, seed, repeat) > (?, ?, ?)"
    return _evaluations(connection.execute(_SELECT.format(where=where), (*(after or ()), size)))


def _evaluations(rows: Iterable[tuple[Any, ...]]) -> list[Evaluation]:
    """Make evaluations from the rows of ``_SELECT``, one row for each name of a score."""
    found = []
    for (arch, seed, repeat, genotype, seconds, error), group in itertools.groupby(rows, lambda row: row[:6]):
        named = [row[6:] for row in group if row[6] is not None]
        scores = {name: _INFINITE.get(state, value) for name, value, state, _ in named if state != "failed"}
        reasons = {name: reason for name, _, _, reason in named if reason is not None}
        found.append(
            Evaluation(tuple(json.loads(genotype)), arch, scores, json.loads(seconds), seed, repeat, reasons, error)
        )
    return found


def columns(evaluations: Iterable[Evaluation]) -> dict[str, list[Any]]:
    """Columns of a table of results: key, a column per score, ``seconds.*``, error, reasons as JSON; None = missing."""
    table = list(evaluations)
    names = sorted({name for e in table for name in (*e.scores, *e.reasons)})
    stages = sorted({stage for e in table for stage in e.seconds})
    return {
        "arch": [e.arch for e in table],
        "seed": [e.seed for e in table],
        "repeat": [e.repeat for e in table],
        **{name: [e.scores.get(name) for e in table] for name in names},
        **{f"seconds.{stage}": [e.seconds.get(stage) for e in table] for stage in stages},
        "error": [e.error for e in table],
        "reasons": [json.dumps(dict(e.reasons), ensure_ascii=False) if e.reasons else None for e in table],
    }


def record(evaluation: Evaluation) -> dict[str, Any]:
    """Make strict JSON of an evaluation: a score that is no finite number is null and has a status."""
    scores: dict[str, float | None] = dict.fromkeys(evaluation.reasons) | dict(evaluation.scores)
    states = {name: status(score) for name, score in sorted(scores.items())}
    finite = {name: score if states[name] == "finite" else None for name, score in sorted(scores.items())}
    rest = {name: state for name, state in states.items() if state != "finite"}
    return {**dataclasses.asdict(evaluation), "scores": finite, "status": rest}


def canonical_json(options: Mapping[str, object]) -> str:
    """Options as one JSON text, the same for equal options in any order."""
    texts = []
    for key, value in sorted(options.items()):
        try:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"option {key!r} of a result store must be plain JSON (text, finite numbers, lists, dicts), "
                f"but is {value!r}"
            ) from error
        texts.append(f"{json.dumps(key)}:{text}")
    return "{" + ",".join(texts) + "}"


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List what changed between two options, like ``batch_size 64 -> 128``."""
    before, after = _leaves(old), _leaves(new)
    return [
        f"{key} {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _leaves(options: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves of nested options as JSON, by dotted key."""
    leaves: dict[str, str] = {}
    for key, value in options.items():
        if isinstance(value, dict) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = json.dumps(value, sort_keys=True)
    return leaves


def use_write_ahead_log(connection: sqlite3.Connection, timeout: float) -> None:
    """Keep the file with a write-ahead log; waits for others itself, as SQLite does not wait within this change."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def code(error: Exception) -> int:
    """Read SQLite's primary result code; 0 if the error has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def explain(error: Exception, timeout: float) -> str:
    """Say what an error of SQLite means for a store, and the remedy."""
    return _MEANINGS.get(code(error), DAMAGED).format(error=error, timeout=timeout)
