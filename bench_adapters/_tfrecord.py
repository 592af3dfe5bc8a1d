"""Records of a TFRecord file with their checksums, without TensorFlow.

Format: tensorflow.org/tutorials/load_data/tfrecord. A record is its length (8 bytes), the masked CRC-32C of that (4),
the data, the masked CRC-32C of the data (4), all little-endian. CRC-32C: RFC 3720, appendix B.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from naswot.errors import DataError

_BATCH: Final = 4096  # records whose checksums are taken together
_LONGEST: Final = 1 << 16  # bytes of a record; a longer one is a damaged length, and a batch is padded to its longest


def read_records(path: Path) -> Iterator[bytes]:
    """Data of every record, in order; a few thousand records are held at a time.

    Raises:
        DataError: if the file is missing, ends within a record, or a checksum is wrong; it says at which byte.
    """
    try:
        with path.open("rb") as file:
            records = _unchecked(file, path)
            while batch := list(islice(records, _BATCH)):
                data = [record for _, record, _ in batch]
                wrong = np.flatnonzero(masked_crc32c(data) != np.array([crc for _, _, crc in batch], dtype=np.uint32))
                if wrong.size:
                    raise DataError(f"{path} is damaged: wrong checksum of the record at byte {batch[wrong[0]][0]:,}")
                yield from data
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _unchecked(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Place, data and stored checksum of each record; only that of the length is compared."""
    place = 0
    lengths: dict[bytes, int] = {}  # by header; a file has few lengths
    while header := file.read(12):
        length = lengths.get(header)
        if length is None:
            lengths[header] = length = _length(header, place, path)
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise DataError(f"{path} is truncated: it ends within the record at byte {place:,}")
        yield place, body[:length], int.from_bytes(body[length:], "little")
        place += 16 + length


def _length(header: bytes, place: int, path: Path) -> int:
    if len(header) < 12:
        raise DataError(f"{path} is truncated: it ends within the record at byte {place:,}")
    length, crc = struct.unpack("<QI", header)
    if masked_crc32c([header[:8]])[0] != crc or length > _LONGEST:
        raise DataError(f"{path} is damaged or no TFRecord file: wrong checksum of the length at byte {place:,}")
    return int(length)


def masked_crc32c(records: list[bytes]) -> NDArray[np.uint32]:
    """Checksums of n byte strings as TFRecord files hold them, (n,) uint32.

    All strings go one byte further together, the longest first, so that those with a byte left are the first ones.
    """
    lengths = np.array([len(record) for record in records])
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    padded = b"".join([records[row].ljust(longest, b"\0") for row in order])
    columns = np.ascontiguousarray(np.frombuffer(padded, dtype=np.uint8).reshape(len(records), longest).T)
    n_left = np.searchsorted(-lengths[order], -np.arange(longest), side="left")  # how many are longer than each column
    state = np.full(len(records), 0xFFFFFFFF, dtype=np.uint32)
    for column, n in zip(columns, n_left, strict=True):
        head = state[:n]
        state[:n] = _TABLE[(head & 0xFF) ^ column[:n]] ^ (head >> 8)
    crc = np.empty_like(state)
    crc[order] = ~state
    rotated = (crc >> np.uint32(15)) | (crc << np.uint32(17))
    return rotated + np.uint32(0xA282EAD8)


def _table() -> NDArray[np.uint32]:
    """CRC-32C of each single byte: division by the reversed Castagnoli polynomial."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_TABLE: Final = _table()
