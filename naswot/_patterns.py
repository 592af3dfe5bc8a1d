"""Compiled set of bit patterns: each unit's bits over the images, counted once however often they occur.

Imported only where codes are packed, which needs numba as well; elsewhere the same sets are kept by ``torch.unique``.
Patterns gather in a buffer, which is rid of its repetitions when it is full and when it is counted: those of one word
by numpy's sort, longer ones by hash tables of indices, one for each of many buckets small enough for the processor's
cache (one large table would miss the cache at every pattern). Whole patterns are compared, so the count is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_WORD = 64
_CAPACITY = 1 << 18  # patterns in the first buffer
_BUCKET = 1 << 12  # patterns in a bucket, about
_ODD = 0x9E3779B97F4A7C15  # 2**64 / golden ratio


@njit(nogil=True, cache=True)
def _transpose(block: Any) -> None:
    """Transpose 64 words as a matrix of bits: word b receives bit b of every word."""
    width = 32
    mask = np.uint64(0x00000000FFFFFFFF)
    while width:
        shift = np.uint64(width)
        for group in range(0, _WORD, 2 * width):
            for low in range(group, group + width):
                swap = ((block[low] >> shift) ^ block[low + width]) & mask
                block[low] ^= swap << shift
                block[low + width] ^= swap
        width >>= 1
        mask ^= mask << np.uint64(width)


@njit(nogil=True, cache=True)
def _append(words: Any, d: int, patterns: Any, start: int) -> None:
    """Write the patterns of D units, whose bits are packed as (N, ceil(D / 64)), behind the first ``start``."""
    n, w = words.shape
    block = np.zeros(_WORD, np.uint64)
    for column in range(w):
        first = column * _WORD
        for part in range(patterns.shape[1]):
            rows = min(_WORD, n - part * _WORD)
            for i in range(rows):
                block[i] = words[part * _WORD + i, column]
            for i in range(rows, _WORD):
                block[i] = 0
            _transpose(block)
            for i in range(min(_WORD, d - first)):
                patterns[start + first + i, part] = block[i]


@njit(nogil=True, cache=True)
def _hash(patterns: Any, row: int) -> Any:
    """64 bits, mixed from all words of a pattern; the upper ones choose the bucket, the lower ones the slot."""
    mixed = np.uint64(0)
    for k in range(patterns.shape[1]):
        mixed = (mixed ^ patterns[row, k]) * np.uint64(_ODD)
        mixed ^= mixed >> np.uint64(32)
    return mixed * np.uint64(_ODD)


@njit(nogil=True, cache=True)
def _distinct(dealt: Any, start: int, end: int, table: Any, patterns: Any, kept: int) -> int:
    """Copy one of each pattern of a bucket behind the first ``kept``; how many are kept then."""
    last = np.uint64(table.shape[0] - 1)
    table[:] = -1
    for i in range(start, end):
        slot = _hash(dealt, i) & last
        while table[slot] >= 0:
            other = np.uint64(0)
            for k in range(dealt.shape[1]):
                other |= patterns[table[slot], k] ^ dealt[i, k]
            if other == 0:
                break
            slot = (slot + np.uint64(1)) & last
        if table[slot] < 0:
            table[slot] = kept
            for k in range(dealt.shape[1]):
                patterns[kept, k] = dealt[i, k]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _compact(patterns: Any, n: int, bucket_bits: int) -> int:
    """Keep one of each of the first ``n`` patterns, at the front of the array in another order; how many remain."""
    parts = patterns.shape[1]
    ends = np.zeros(1 << bucket_bits, np.int64)
    shift = np.uint64(_WORD - bucket_bits)
    for i in range(n):
        ends[_hash(patterns, i) >> shift] += 1
    slots = 2
    while slots < 2 * ends.max():
        slots *= 2
    total = 0
    for b in range(ends.shape[0]):  # sizes become starts, and by the dealing out ends
        total += ends[b]
        ends[b] = total - ends[b]
    dealt = np.empty((n, parts), np.uint64)
    for i in range(n):
        bucket = _hash(patterns, i) >> shift
        for k in range(parts):
            dealt[ends[bucket], k] = patterns[i, k]
        ends[bucket] += 1
    table = np.empty(slots, np.int64)
    kept = start = 0
    for b in range(ends.shape[0]):
        kept = _distinct(dealt, start, ends[b], table, patterns, kept)
        start = ends[b]
    return kept


class PatternSet:
    """Growing set of the patterns of units over N images.

    Args:
        n: number of images N.
    """

    def __init__(self, n: int) -> None:
        self._n_filled = self._n_distinct = 0
        self._patterns = np.empty((_CAPACITY, -(-n // _WORD)), np.uint64)

    def __len__(self) -> int:
        if self._n_filled > self._n_distinct:
            self._n_filled = self._n_distinct = self._without_repetitions()
        return self._n_distinct

    def insert(self, words: Any, d: int) -> None:
        """Add the patterns of D units, packed as :func:`naswot.kernels.packed_codes` packs them."""
        capacity, parts = self._patterns.shape
        if self._n_filled + d > capacity and 2 * (len(self) + d) > capacity:
            larger = np.empty((4 * (self._n_filled + d), parts), np.uint64)
            larger[: self._n_filled] = self._patterns[: self._n_filled]
            self._patterns = larger
        _append(words, d, self._patterns, self._n_filled)
        self._n_filled += d

    def _without_repetitions(self) -> int:
        n, parts = self._n_filled, self._patterns.shape[1]
        if parts > 1:
            return int(_compact(self._patterns, n, max(1, (n // _BUCKET).bit_length())))
        values = self._patterns[:n, 0]
        values.sort()
        first = np.concatenate([[True], values[1:] != values[:-1]])
        kept = int(first.sum())
        if kept < n:
            values[:kept] = values[first]
        return kept
