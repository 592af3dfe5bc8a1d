"""The wire format of protocol buffers, as far as reading needs it: protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_FIXED: Final = {1: struct.Struct("<d"), 5: struct.Struct("<f")}


def fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of each field of a message, in order.

    Varints come as unsigned integers, fixed fields as floating-point numbers, the rest (strings, messages) as bytes.

    Raises:
        ValueError: if the message ends within a field or has a field of an unknown type.
    """
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield number, value
        elif kind == 2:
            size, place = _varint(message, place)
            if place + size > end:
                raise ValueError(f"a message of {end} bytes ends within field {number}")
            yield number, message[place : place + size]
            place += size
        elif kind in _FIXED:
            form = _FIXED[kind]
            if place + form.size > end:
                raise ValueError(f"a message of {end} bytes ends within field {number}")
            yield number, form.unpack_from(message, place)[0]
            place += form.size
        else:
            raise ValueError(f"field {number} of a message has the unknown type {kind}")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, lowest first, and the place behind it."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError(f"a message of {len(message)} bytes ends within an integer")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
