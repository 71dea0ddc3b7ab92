"""What the Linux guest's workload sends and writes, as seen from outside: records, journal blocks. Pure."""

from __future__ import annotations

import struct
from typing import Final

RECORD_BYTES: Final = 64
BLOCK_BYTES: Final = 4096
ECHO_PORT, JOURNAL_PORT, STREAM_PORT = 7007, 7008, 7009
_MASK = 2**64 - 1
_MAGIC = 0x6C61676A6D76696C
_RECORD = struct.Struct("<8Q")
_BLOCK = struct.Struct("<512Q")


def mix(value: int) -> int:
    """Spreads a number over 64 bits (splitmix64), as ``mix`` of main.c does."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def record(sequence: int) -> bytes:
    """The record of a sequence number."""
    return _RECORD.pack(sequence, *(mix(sequence + word) for word in range(1, 8)))


def sequence_of(data: bytes) -> int:
    """The sequence number that a record begins with."""
    return int.from_bytes(data[:8], "little")


def journal_sequences(image: bytes) -> set[int]:
    """The numbers of all blocks of a journal that are whole: magic, number and checksum fit."""
    found = set()
    for offset in range(0, len(image) - BLOCK_BYTES + 1, BLOCK_BYTES):
        magic, sequence, checksum, *words = _BLOCK.unpack_from(image, offset)
        if magic == _MAGIC and checksum == _checksum(words) and words[0] == mix(sequence * BLOCK_BYTES + 3):
            found.add(sequence)
    return found


def _checksum(words: list[int]) -> int:
    checksum = 0
    for word in words:
        checksum = mix(checksum ^ word)
    return checksum
