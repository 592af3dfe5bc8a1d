"""A look at a pickle before it is unpickled: its memo must stay within the size of the file.

An unpickler makes room for the highest number under which a pickle stores an object. The number stands in the file, so
that one flipped bit of ten bytes asks for 64 GiB. What Python writes numbers its objects without gaps.
"""

from __future__ import annotations

import pickle
import pickletools
import re

from naswot.errors import DataError

_SIZES = {op.code.encode("latin1"): 0 if op.arg is None else op.arg.n for op in pickletools.opcodes}
"""Bytes of the argument of each opcode; negative: a line of text, or as many bytes as its first 1, 4 or 8 bytes say."""
_SHORT = pickletools.TAKEN_FROM_ARGUMENT1
_LENGTHS = {
    _SHORT: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LISTED = 40
"""Texts shorter than this are part of the pattern, which saves most steps of the loop."""


def _plain() -> re.Pattern[bytes]:
    """A run of opcodes with arguments of fixed size, or short texts, that give no number of the memo above 255."""
    sized = {n: [code for code, size in _SIZES.items() if size == n] for n in (*range(9), _SHORT)}
    sized[0].remove(pickle.STOP)
    sized[4].remove(pickle.LONG_BINPUT)
    parts = [b"[%s]%s" % (b"".join(map(re.escape, sized[n])), b"." * n) for n in range(9) if sized[n]]
    texts = b"|".join(re.escape(bytes([n])) + b"." * n for n in range(_LISTED))
    parts.append(b"[%s](?:%s)" % (b"".join(map(re.escape, sized[_SHORT])), texts))
    return re.compile(b"(?s:%s)*+" % b"|".join(parts))


_PLAIN = _plain()


def check_memo(data: bytes) -> int:
    """Length of the pickle at the start of ``data``; all of it where its end or an unknown opcode is not found.

    Raises:
        DataError: if it stores an object under a number above its length in bytes.
    """
    position = 0
    while True:
        position = _PLAIN.match(data, min(position, len(data))).end()  # type: ignore[union-attr]  # nothing matches too
        code, position = data[position : position + 1], position + 1
        size = _SIZES.get(code)
        if code == pickle.STOP:
            return position
        if code == pickle.LONG_BINPUT:
            _check(int.from_bytes(data[position : position + 4], "little"), len(data))
            position += 4
        elif size == pickletools.UP_TO_NEWLINE:
            line, position = _line(data, position)
            if code == pickle.PUT:
                _check(_number(line), len(data))
            if code in (pickle.GLOBAL, pickle.INST):
                _, position = _line(data, position)
        elif size in _LENGTHS:
            n = _LENGTHS[size]
            position += n + int.from_bytes(data[position : position + n], "little")
        else:  # no opcode, or the argument of the last one is cut off
            return len(data)


def _line(data: bytes, position: int) -> tuple[bytes, int]:
    """The text up to the end of the line, and where the next one begins."""
    end = data.find(b"\n", position)
    return (data[position:], len(data)) if end < 0 else (data[position:end], end + 1)


def _number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:  # the unpickler refuses it too
        return 0


def _check(number: int, limit: int) -> None:
    if number > limit:
        raise DataError(f"the pickle stores an object under number {number:,}, but holds {limit:,} bytes")
