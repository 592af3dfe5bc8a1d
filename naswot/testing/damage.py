"""Seeded damage to files, for readers that must survive it: a sound result or an error that says what is wrong.

Example:
    Each of a thousand damaged copies of a small sound file is read or refused::

        from naswot.testing.damage import outcomes
        found = Counter(outcomes(write_small_file, reader, n=1000, folder=tmp_path))
        assert not [name for name in found if is_wrong(name)]
"""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import json
import math
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from naswot.data._safe_pickle import load_pickle
from naswot.errors import NaswotError
from naswot.seeding import derive_seed, numpy_generator

SOUND = "sound"
REFUSED = "refused: "
_SLOW = 5.0  # seconds of the processor, whatever else runs on the machine


class _Layer(NamedTuple):
    """How what lies within a file is taken out and put back."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


class Payload:
    """A pickle of this creates a file when a plain unpickler reads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.trace), "w")


def is_wrong(outcome: str) -> bool:
    """Whether a reader may not end so."""
    return outcome != SOUND and not outcome.startswith(REFUSED)


def outcomes(
    write: Callable[[Path], Path], read: Callable[[Path], object], *, n: int, folder: Path, seed: int = 0
) -> Iterator[str]:
    """What a reader makes of ``n`` damaged copies of a file.

    Args:
        write: makes a small sound file, or a folder of files, in a folder and returns its path.
        read: the reader under test; raises a ``NaswotError`` where it refuses.
        n: number of copies.
        folder: an empty folder for them.
        seed: every copy follows from it and its number.
    Yields:
        ``"sound"``, ``"refused: NAME OF THE ERROR"`` or anything else, which is wrong: the name of another error,
        ``"ran code"``, ``"slow"``.
    """
    trace = folder / "trace of code that ran"
    path = write(folder)
    files = sorted(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    sound = [file.read_bytes() for file in files]
    for number in range(n):
        rng = numpy_generator(derive_seed(seed, "damage", number))
        chosen = int(rng.integers(len(files)))
        files[chosen].write_bytes(damaged(sound[chosen], rng, payload=Payload(trace)))
        yield _outcome(read, path, trace)
        files[chosen].write_bytes(sound[chosen])


def _outcome(read: Callable[[Path], object], path: Path, trace: Path) -> str:
    start = time.process_time()
    try:
        with warnings.catch_warnings(action="ignore"):
            read(path)
        found = SOUND
    except NaswotError as error:
        found = f"{REFUSED}{type(error).__name__}"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    if trace.exists():
        trace.unlink()
        return "ran code"
    return "slow" if time.process_time() - start > _SLOW else found


def damaged(content: bytes, rng: np.random.Generator, *, payload: object = None) -> bytes:
    """A copy that differs in bytes, in bytes below its compression, or in values of the JSON, pickle or table it holds.

    Args:
        content: a file; JSON, pickles (also compressed by bzip2, or of ``torch.save``) and parquet are recognised.
        rng: where the damage comes from.
        payload: an object that is sometimes planted into a pickle.
    """
    layers = _layers(content)
    depth = int(rng.integers(len(layers) + 1))
    inner: Any = content
    for layer in layers[:depth]:
        inner = layer.decode(inner)
    try:
        changed = _damaged_bytes(inner, rng) if isinstance(inner, bytes) else _changed(inner, rng, payload)
        for layer in reversed(layers[:depth]):
            changed = layer.encode(changed)
    except Exception:  # not every value can be a key, or be written in every form
        return _damaged_bytes(content, rng)
    return bytes(changed)


def of_something_else(content: bytes) -> bytes | None:
    """A sound file of the same form that holds other data; None if the form is not recognised."""
    layers = _layers(content)
    table = {"columns": {"weights": [1.0]}, "about": {}}
    value: Any = table if content.startswith(_PARQUET) else {"weights": [1.0]}
    if not layers or layers[-1] in _WRAPPINGS.values():
        return None
    for layer in reversed(layers):
        value = layer.encode(value)
    return bytes(value)


def planted(content: bytes, payload: object) -> bytes | None:
    """A copy of a pickle that holds ``payload`` too; None if the file is no pickle."""
    layers = _layers(content)
    if not layers or layers[-1].decode not in (_of_one, _of_several):
        return None
    value: Any = content
    for layer in layers:
        value = layer.decode(value)
    value = {**value, "planted": payload} if isinstance(value, dict) else [*value, payload]
    for layer in reversed(layers):
        value = layer.encode(value)
    return bytes(value)


# ---------------------------------------------------------------------------------------------------------- forms

_PARQUET = b"PAR1"
_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def _layers(content: bytes) -> tuple[_Layer, ...]:
    """From the outermost in. Plain unpicklers read them, so that only files which a test has made may come here."""
    for start, layer in _WRAPPINGS.items():
        if content.startswith(start):
            return layer, *_layers(layer.decode(content))
    if content.startswith(_OLD_TORCH):
        return (_Layer(_of_several, _to_several),)
    if content.startswith(_PARQUET):
        return (_Layer(_read_parquet, _write_parquet),)
    if content.startswith(b"\x80") and content.endswith(b"."):
        return (_Layer(_of_one, lambda value: pickle.dumps(value, protocol=content[1])),)
    if content[:1] in (b"{", b"["):
        return (_Layer(json.loads, lambda value: json.dumps(value).encode()),)
    return ()


def _unzip(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def _zip(content: bytes) -> bytes:
    """What ``torch.save`` writes of data without tensors."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


_WRAPPINGS = {
    b"BZh": _Layer(bz2.decompress, bz2.compress),
    b"\x1f\x8b": _Layer(gzip.decompress, gzip.compress),
    b"PK": _Layer(_unzip, _zip),
}


def _of_one(content: bytes) -> Any:
    return load_pickle(io.BytesIO(content))


def _of_several(content: bytes) -> Any:
    """What ``torch.save`` wrote before it used zip: number, protocol, machine, content, names of tensors."""
    file = io.BytesIO(content)
    return [load_pickle(file) for _ in range(4)][3]


def _to_several(value: Any) -> bytes:
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts: tuple[Any, ...] = (1001, machine, value, [])
    return _OLD_TORCH + b"".join(pickle.dumps(part, protocol=2) for part in parts)


def _read_parquet(content: bytes) -> dict[str, Any]:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    texts = {key: json.loads(value) for key, value in about.items() if key == "naswot"}
    return {"columns": {name: table.column(name).to_pylist() for name in table.column_names}, "about": texts}


def _write_parquet(content: dict[str, Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(content["columns"])
    about = {key: json.dumps(value) for key, value in content["about"].items()}
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(about), file)
    return file.getvalue()


# ---------------------------------------------------------------------------------------------------------- damage


def _damaged_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        size = len(data)
        if not size:
            break
        at, other = sorted(int(place) for place in rng.integers(0, size, 2))
        block = min(1 << int(rng.integers(10)), size)
        match int(rng.integers(7)):
            case 0 | 1:
                data[at] ^= 1 << int(rng.integers(8))
            case 2:
                del data[other:]
            case 3:  # two blocks change places
                first, second = data[at : at + block], data[other : other + block]
                data[at : at + block], data[other : other + block] = second, first
            case 4:
                data[at:at] = rng.bytes(block)
            case 5:
                del data[at : at + block]
            case _:
                data[at : at + block] = bytes([int(rng.choice([0, 255, 127, 32]))]) * len(data[at : at + block])
    return bytes(data)


def _changed(value: Any, rng: np.random.Generator, payload: object) -> Any:
    """A deep copy in which one part has another type, another value, another place, or is missing."""
    whole = [copy.deepcopy(value)]
    holder: Any = whole
    key: Any = 0
    while True:
        inner = holder[key]
        is_open = isinstance(inner, MutableMapping | MutableSequence) and len(inner) > 0
        if not is_open or (holder is not whole and rng.random() < 0.25):
            break
        holder, key = inner, _some_key(inner, rng)
    match int(rng.integers(6)) if holder is not whole else 5:
        case 0:
            del holder[key]
        case 1:  # two parts change places
            other = _some_key(holder, rng)
            holder[key], holder[other] = holder[other], holder[key]
        case 2 if isinstance(holder, MutableMapping):
            holder[_strange(key, rng, payload=None)] = holder.pop(key)
        case 2:
            holder.insert(key, holder[key])
        case _:
            holder[key] = _strange(holder[key], rng, payload)
    return whole[0]


def _some_key(container: Any, rng: np.random.Generator) -> Any:
    keys = list(container) if isinstance(container, MutableMapping) else range(len(container))
    return keys[int(rng.integers(len(keys)))]


def _strange(value: Any, rng: np.random.Generator, payload: object) -> Any:
    """Something else in place of ``value``."""
    numbers = [None, True, -1, 0, 255, 10**9, 10**30, 1.5, -0.5, math.nan, math.inf, 1e300]
    texts = ["", "text", "(1, 2, 3)", "0" * 1000, "[" * 1000, str(value), b"bytes", "\ud7ff\x00"]
    containers = [[], {}, [value], {"a": value}, (value,), [[value]], np.float64(3), np.arange(3), {1, 2}]
    planted = [] if payload is None else [payload] * 20
    choices = [*numbers, *texts, *containers, *planted]
    return choices[int(rng.integers(len(choices)))]
