"""Reading pickles of others: plain containers and numpy arrays, nothing else.

CIFAR, ImageNet16 and most benchmark tables are pickles, and a pickle is a program. Not even numpy's own constructors
are handed to it: a crafted ``dtype`` state makes ``ndarray.__setstate__`` take bytes for object pointers. The
unpickler meets stand-ins that only collect their arguments; the arrays are made from them here, after checks.
Code cannot run, and the memo of the unpickler is bounded by the size of the file; what a crafted file asks for by
compressed data is not.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from naswot.data._pickle_memo import check_memo
from naswot.errors import DataError, NaswotError, UnsafePickleError

_PLAIN_TYPE = re.compile(r"b1|[iu][1248]|f[248]|f1[26]|c8|c16|[SU][0-9]{1,6}")


def load_pickle(path_or_file: str | os.PathLike[str] | IO[bytes], *, encoding: str = "latin1") -> Any:
    """Content of a pickle that holds only plain containers, strings, numbers and numpy arrays.

    Args:
        path_or_file: a path (files compressed by gzip or bzip2 are recognised by their first bytes), or an open binary
            file in which one can seek, of which exactly one pickle is read.
        encoding: how strings written by Python 2 are decoded; ``"bytes"`` leaves them as bytes.
    Returns:
        The unpickled object; arrays are plain, writable ``numpy.ndarray``.
    Raises:
        UnsafePickleError: if it asks for anything else; nothing of it was executed.
        DataError: if the file is missing, empty, truncated or no pickle.
    Example:
        >>> import io
        >>> load_pickle(io.BytesIO(pickle.dumps({"data": np.arange(3)})))
        {'data': array([0, 1, 2])}
    """
    if not isinstance(path_or_file, str | os.PathLike):
        position = path_or_file.tell()
        loaded, length = _load(path_or_file, str(getattr(path_or_file, "name", "the open file")), encoding)
        path_or_file.seek(position + length)
        return loaded
    path = Path(path_or_file)
    try:
        with path.open("rb") as raw:
            start = raw.peek(3)
            if start.startswith(b"\x1f\x8b"):
                return _load(cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), str(path), encoding)[0]
            return _load(bz2.BZ2File(raw) if start.startswith(b"BZh") else raw, str(path), encoding)[0]
    except NaswotError:  # our own DataError is an OSError too
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _load(file: IO[bytes], name: str, encoding: str) -> tuple[Any, int]:
    """The content, and how many bytes it took."""
    try:
        data = file.read()
        length = check_memo(data)
        unpickler = _ArrayUnpickler(io.BytesIO(data), encoding)
        loaded = unpickler.load()
        return (_finish(loaded, {}) if unpickler.has_stand_ins else loaded), length
    except (UnsafePickleError, DataError) as error:
        raise type(error)(f"{name}: {error}") from None
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} is empty, truncated or no pickle of plain containers and arrays: {reason}") from error


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.has_stand_ins = False

    def find_class(self, module: str, name: str, /) -> Any:
        self.has_stand_ins = self.has_stand_ins or name in ("_reconstruct", "dtype")
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"the pickle asks for {module}.{name} and is not loaded: only plain containers and numpy arrays are "
                "allowed; nothing of it was executed"
            ) from None


class _Call:
    """A function the pickle may call; a slotted instance, because a pickle can set attributes on functions."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise UnsafePickleError(f"the pickle tries to set {name!r} on a function and is not loaded")


class _DType:
    """Stand-in for ``numpy.dtype``: keeps a plain type, refuses objects, fields and subarrays."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment]  # so that no stand-in hides in a set or as a key

    def __init__(self, code: object, *_: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _PLAIN_TYPE.fullmatch(text):
            raise UnsafePickleError(
                f"the pickle holds an array of type {text!r} and is not loaded: only numbers and strings are allowed"
            )
        self.value: np.dtype[Any] = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields = state[:5]
        if not (subarray is None and names is None and fields is None):
            raise UnsafePickleError("the pickle holds an array with fields or subarrays and is not loaded")
        text = order.decode("latin1") if isinstance(order, bytes) else order
        self.value = self.value.newbyteorder(cast("Any", text))  # numpy's own check of the letter


class _Array:
    """Stand-in for an array; ``value`` is there once its state was read."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, data = state[-4:]  # a version number stands before them in all but the oldest files
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote bytes as strings
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise UnsafePickleError(
            "the pickle holds an array that is not made of plain numbers or strings; it is not loaded"
        )
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise DataError(f"the pickle holds an array of impossible shape {shape!r}")
    wanted = math.prod(shape) * dtype.value.itemsize
    if len(raw) != wanted:
        raise DataError(f"the pickle holds an array of {len(raw):,} bytes whose shape {shape} needs {wanted:,}")
    return np.ndarray(shape, dtype.value, buffer=bytearray(raw), order="F" if order == "F" else "C")


def _reconstruct(subtype: object, *_: object) -> _Array:
    if subtype is not _NDARRAY:
        raise UnsafePickleError(f"the pickle holds an array of class {subtype!r} and is not loaded")
    return _Array()


def _scalar(dtype: object, data: object) -> Any:
    return _array(data, dtype, (), "C")[()]


def _encode(text: str, encoding: str = "latin1", *_: object) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"the pickle asks for the codec {encoding!r} and is not loaded")
    return text.encode("latin1")


def _bytes(*args: object) -> bytes:
    if args:
        raise UnsafePickleError("the pickle calls bytes() with arguments and is not loaded")
    return b""


def _refuse_call(*_: object) -> None:
    raise UnsafePickleError("the pickle calls numpy.ndarray itself and is not loaded")


def _finish(value: Any, done: dict[int, Any]) -> Any:
    """``value`` with every stand-in replaced by its array; lists and dicts are changed in place."""
    if isinstance(value, _Array | _DType):
        return value.value
    if not isinstance(value, list | dict | tuple):
        return value
    key = id(value)
    if key not in done:
        done[key] = None if isinstance(value, tuple) else value
        if isinstance(value, tuple):
            done[key] = tuple(_finish(item, done) for item in value)
        elif isinstance(value, list):
            value[:] = [_finish(item, done) for item in value]
        else:
            for name, item in value.items():
                value[name] = _finish(item, done)
    if done[key] is None:
        raise DataError("the pickle holds a tuple that contains itself")
    return done[key]


_NDARRAY = _Call(_refuse_call)
_NUMPY: dict[str, _Call] = {
    "ndarray": _NDARRAY,
    "dtype": _Call(_DType),
    "_reconstruct": _Call(_reconstruct),
    "scalar": _Call(_scalar),
}
_FROMBUFFER = _Call(lambda data, dtype, shape, order, *_: _array(data, dtype, shape, order))
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, name): call for module in _MODULES for name, call in _NUMPY.items()},
    **{(module, "_frombuffer"): _FROMBUFFER for module in ("numpy.core.numeric", "numpy._core.numeric")},
    **{(module, kind.__name__): kind for module in ("__builtin__", "builtins") for kind in (set, frozenset, complex)},
    **{(module, "bytes"): _Call(_bytes) for module in ("__builtin__", "builtins")},
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Call(_encode),
}
