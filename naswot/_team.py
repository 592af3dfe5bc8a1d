"""The compiled loops of :mod:`naswot._popcount`, dealt out to the threads that torch keeps.

After each of its parallel operations torch's OpenMP threads wait busily for the next one. A loop on one thread leaves
them spinning, and a loop on threads of its own competes with them for the cores; so the loops here join torch's own
team, through the entry point that its compiler's code uses, ``GOMP_parallel``. Where torch runs on one thread or was
built with an OpenMP that lacks it, the same loops run on the calling thread. Integers come out the same.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import torch
from numba import carray, cfunc, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from naswot._popcount import agreement as _agreement
from naswot._popcount import pack as _pack
from naswot._popcount import pack_relu as _pack_relu

_THREAD_NUMBER = "naswot_omp_get_thread_num"  # a name of ours, so that no other OpenMP in the process answers
_thread_number = types.ExternalFunction(_THREAD_NUMBER, types.int32())

_ADDRESSES = ("values", "output", "words", "kernel")
_NUMBERS = ("n", "d", "w", "threads")
_BOUNDS = ("lower", "upper", "floor")
_TASK = np.dtype(
    [*((name, np.int64) for name in _ADDRESSES + _NUMBERS), *((name, np.float64) for name in _BOUNDS)], align=True
)
"""What one call hands to every thread: addresses and shapes of the arrays, bounds of the set bits."""

_Entry = Callable[[int, int], None]


@functools.cache
def _team() -> Any | None:
    """Torch's own OpenMP library, reached through the library that was linked against it; None if there is none."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
        llvm.add_symbol(_THREAD_NUMBER, ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value)
    except (OSError, AttributeError):
        return None
    return library


@intrinsic
def _pointer(typing_context: Any, address: Any, kind: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """An address as a pointer to numbers of that kind."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind.dtype)(address, kind), generate  # type: ignore[no-untyped-call]


_SIGNATURE = types.void(types.CPointer(numba.from_dtype(_TASK)))  # type: ignore[no-untyped-call]


@functools.cache
def _packing(kind: type[Any], relu: bool) -> int:
    """Address of the compiled share of :func:`pack` or, with ``relu``, of :func:`pack_relu`, for values of a kind."""

    @cfunc(_SIGNATURE, cache=True)
    def share(given: Any) -> None:
        task = carray(given, 1)[0]
        values = carray(_pointer(task.values, kind), (task.n, task.d))  # type: ignore[call-arg]
        words = carray(_pointer(task.words, np.uint64), (task.n, task.w))
        me = _thread_number()
        first, last = me * task.n // task.threads, (me + 1) * task.n // task.threads
        lower, upper = kind(task.lower), kind(task.upper)
        if relu:
            output = carray(_pointer(task.output, kind), (task.n, task.d))
            _pack_relu(values, lower, upper, kind(task.floor), words, output, first, last)
        else:
            _pack(values, lower, upper, words, first, last)

    address: int = share.address  # type: ignore[assignment]
    return address


@functools.cache
def _counting() -> int:
    """Address of the compiled share of :func:`agreement`."""

    @cfunc(_SIGNATURE, cache=True)
    def share(given: Any) -> None:
        task = carray(given, 1)[0]
        words = carray(_pointer(task.words, np.uint64), (task.n, task.w))  # type: ignore[call-arg]
        kernel = carray(_pointer(task.kernel, np.float64), (task.n, task.n))
        _agreement(words, task.d, kernel, _thread_number(), task.threads)

    address: int = share.address  # type: ignore[assignment]
    return address


def _together(entry: int, **task: Any) -> None:
    """Run a compiled share on every thread of the team."""
    given = np.zeros(1, _TASK)
    for name, value in task.items():
        given[name] = value.ctypes.data if name in _ADDRESSES else value
    team = _team()
    assert team is not None
    team.GOMP_parallel(entry, given.ctypes.data, int(given["threads"][0]), 0)


def n_threads() -> int:
    """Number of threads the loops run on: torch's, or 1 where its team cannot be joined."""
    threads = torch.get_num_threads()
    return threads if threads == 1 or _team() is not None else 1


def pack(values: Any, lower: float, upper: float, words: Any) -> None:
    """:func:`naswot._popcount.pack` of all rows."""
    n, d = values.shape
    threads = n_threads()
    if threads == 1:
        _pack(values, lower, upper, words, 0, n)
        return
    shape = {"n": n, "d": d, "w": words.shape[1], "threads": threads}
    _together(_packing(values.dtype.type, False), values=values, words=words, lower=lower, upper=upper, **shape)


def pack_relu(values: Any, lower: float, upper: float, floor: float, words: Any, output: Any) -> None:
    """:func:`naswot._popcount.pack_relu` of all rows."""
    n, d = values.shape
    threads = n_threads()
    if threads == 1:
        _pack_relu(values, lower, upper, floor, words, output, 0, n)
        return
    shape = {"n": n, "d": d, "w": words.shape[1], "threads": threads}
    bounds = {"lower": lower, "upper": upper, "floor": floor}
    _together(_packing(values.dtype.type, True), values=values, output=output, words=words, **bounds, **shape)


def agreement(words: Any, d: int, kernel: Any) -> None:
    """:func:`naswot._popcount.agreement` of all rows."""
    n, w = words.shape
    threads = n_threads()
    if threads == 1:
        _agreement(words, d, kernel, 0, 1)
        return
    _together(_counting(), words=words, kernel=kernel, n=n, d=d, w=w, threads=threads)
