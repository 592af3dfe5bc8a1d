"""Compiled agreement counts: signs packed 64 to a word, compared by exclusive or and the processor's population count.

Imported only by :mod:`naswot.kernels`, and only if numba is installed; the pure PyTorch path there gives the same
integers. Every function releases the interpreter lock, starts no threads and allocates nothing, and works on a share of
the rows, so that :mod:`naswot._team` can deal them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_WORD = 64


@intrinsic
def _population_count(typing_context: Any, word: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Number of set bits of a 64-bit word, as LLVM's own instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        count = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(_WORD)])
        return builder.call(count, arguments)

    return types.uint64(types.uint64), generate


@njit(nogil=True, cache=True)
def pack(values: Any, lower: Any, upper: Any, words: Any, first: int, last: int) -> None:
    """Write the bits ``lower < value <= upper`` of (N, D) values into words, (N, ceil(D / 64)) uint64.

    Rows ``first`` to ``last`` - 1 only.
    """
    d = values.shape[1]
    whole = d // _WORD
    for i in range(first, last):
        for w in range(whole):
            word = np.uint64(0)
            for b in range(_WORD):
                value = values[i, w * _WORD + b]
                word |= np.uint64((value > lower) & (value <= upper)) << np.uint64(b)
            words[i, w] = word
        if whole < words.shape[1]:
            word = np.uint64(0)
            for k in range(whole * _WORD, d):
                value = values[i, k]
                word |= np.uint64((value > lower) & (value <= upper)) << np.uint64(k - whole * _WORD)
            words[i, whole] = word


@njit(nogil=True, cache=True)
def pack_relu(values: Any, lower: Any, upper: Any, floor: Any, words: Any, output: Any, first: int, last: int) -> None:
    """As :func:`pack`, writing in the same sweep the values, or zero where at most ``floor``, into ``output``."""
    d = values.shape[1]
    whole = d // _WORD
    zero = values.dtype.type(0)
    for i in range(first, last):
        for w in range(whole):
            word = np.uint64(0)
            for b in range(_WORD):
                value = values[i, w * _WORD + b]
                output[i, w * _WORD + b] = zero if value <= floor else value
                word |= np.uint64((value > lower) & (value <= upper)) << np.uint64(b)
            words[i, w] = word
        if whole < words.shape[1]:
            word = np.uint64(0)
            for k in range(whole * _WORD, d):
                value = values[i, k]
                output[i, k] = zero if value <= floor else value
                word |= np.uint64((value > lower) & (value <= upper)) << np.uint64(k - whole * _WORD)
            words[i, whole] = word


@njit(nogil=True, cache=True)
def _remaining(words: Any, d: int, kernel: Any, i: int, start: int) -> None:
    """Columns ``start`` to i - 1 of one row of the kernel."""
    for j in range(start, i):
        count = np.uint64(0)
        for k in range(words.shape[1]):
            count += _population_count(words[i, k] ^ words[j, k])  # type: ignore[call-arg]
        kernel[i, j] = d - np.int64(count)


@njit(nogil=True, cache=True)
def agreement(words: Any, d: int, kernel: Any, first: int, step: int) -> None:
    """Write D - d_H(c_i, c_j) of packed codes, (N, W) uint64, into the kernel, (N, N) float64.

    Every ``step``-th pair of rows from pair ``first`` on, with the columns that mirror them.
    """
    n, w = words.shape
    for i in range(2 * first, n - 1, 2 * step):  # blocks of two rows by four columns: six loads serve eight counts
        j = 0
        while j + 4 <= i:
            a0, a1, a2, a3 = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
            b0, b1, b2, b3 = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
            for k in range(w):
                a, b = words[i, k], words[i + 1, k]
                c0, c1, c2, c3 = words[j, k], words[j + 1, k], words[j + 2, k], words[j + 3, k]
                a0 += _population_count(a ^ c0)  # type: ignore[call-arg]
                a1 += _population_count(a ^ c1)
                a2 += _population_count(a ^ c2)
                a3 += _population_count(a ^ c3)
                b0 += _population_count(b ^ c0)
                b1 += _population_count(b ^ c1)
                b2 += _population_count(b ^ c2)
                b3 += _population_count(b ^ c3)
            kernel[i, j], kernel[i, j + 1] = d - np.int64(a0), d - np.int64(a1)
            kernel[i, j + 2], kernel[i, j + 3] = d - np.int64(a2), d - np.int64(a3)
            kernel[i + 1, j], kernel[i + 1, j + 1] = d - np.int64(b0), d - np.int64(b1)
            kernel[i + 1, j + 2], kernel[i + 1, j + 3] = d - np.int64(b2), d - np.int64(b3)
            j += 4
        _remaining(words, d, kernel, i, j)
        _remaining(words, d, kernel, i + 1, j)
    if n % 2 and (n // 2) % step == first:
        _remaining(words, d, kernel, n - 1, 0)
    for p in range(first, (n + 1) // 2, step):
        for i in range(2 * p, min(2 * p + 2, n)):
            kernel[i, i] = d
            for j in range(i):
                kernel[j, i] = kernel[i, j]
