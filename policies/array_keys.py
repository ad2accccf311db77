"""Against tables whose keys are MessagePack arrays: msgspec makes tuples of them, before anybody could look at them.

The hash of a tuple has no secret key, and can be computed backwards: pairs of integers can be made by the thousand that all
have one hash, and then each insertion into a table is as slow as the table is long (hash_flood.py). 80 KB of them stop the
interpreter for half a second, 1 MB for a minute. Honest senders put such keys into Ext.TABLE, so an array in the place of
a key is refused before anything is built. Few arrays in small tables do no harm, and are not looked for.
"""

from __future__ import annotations

import re

from fxcell.policies.errors import DecodeError
from fxcell.policies.value_types import MAX_DEPTH

HARMLESS_BYTES = 4096
HARMLESS_ARRAYS = 400
"""So many keys of one hash cost some milliseconds."""

_ARRAYS = bytes([*range(0x90, 0xA0), 0xDC, 0xDD])
_LARGE_TABLES = (b"\xde", b"\xdf")
_HEADS = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
"""Arrays and tables with a length of its own -> bytes of that length."""
_PAYLOADS = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
}  # fmt: skip
"""Bytes, texts, extensions -> bytes of their length, bytes between it and what they hold."""


_ROW_MIN, _ROW_MAX = 16, 4096

_SMALL = (
    rb"[\x00-\xa0\xc0-\xc3\xe0-\xff]+|[\xcb\xcf\xd3].{8}|[\xca\xce\xd2\xdd].{4}|[\xcd\xd1\xdc].{2}|[\xcc\xd0].|"
    rb"\xd4.{2}|\xd5.{3}|\xd6.{5}|\xd7.{9}|\xd8.{17}|"
) + b"|".join(b"\\x%02x.{%d}" % (0xA0 + size, size) for size in range(1, 32))
_UNREMARKABLE = re.compile(b"(?s:(?:%s){0,50000}+)" % _SMALL)
"""Values, and heads of arrays and of tables of at most 15, one after another: all but large tables, and what _PAYLOADS has.
Possessive: never looked at twice. Bounded: other threads get a turn in between."""


def check(data: bytes | memoryview) -> None:
    """Raise DecodeError for a large table with an array in the place of a key. What extensions hold is not looked into."""
    if len(data) <= HARMLESS_BYTES:
        return
    data = bytes(data)
    if not any(mark in data for mark in _LARGE_TABLES):
        return
    if len(data) - len(data.translate(None, _ARRAYS)) <= HARMLESS_ARRAYS:
        return
    at, end = 0, len(data)
    try:
        while at < end:
            plain = _UNREMARKABLE.match(data, at)
            if plain is not None and plain.end() > at:
                at = plain.end()
            else:
                at = _after_payload(data, at) if data[at] in _PAYLOADS else _after_table(data, at)
    except IndexError:
        return  # cut off in the middle of a value: what decodes it says so


def _after_payload(data: bytes, at: int) -> int:
    width, between = _PAYLOADS[data[at]]
    return at + 1 + width + between + int.from_bytes(data[at + 1 : at + 1 + width], "big")


def _after_table(data: bytes, at: int) -> int:
    """Where the value that begins here ends. Raises DecodeError, and IndexError at a cut."""
    sizes, alike = _SIZES, _ALIKE
    left, is_table = 1, False
    around: list[tuple[int, bool]] = []
    while True:
        while not left:
            if not around:
                return at
            left, is_table = around.pop()
        mark = data[at]
        size = sizes[mark]
        if size:
            at += size
            left -= 1
            if left > _ROW_MIN and data[at] in alike[size] and data[at + size] in alike[size]:
                # Numbers of one size come in rows. None is an array, so it does not matter which of them are keys.
                row = data[at : at + size * min(left, _ROW_MAX) : size]
                count = len(row) - len(row.lstrip(alike[size]))
                at += size * count
                left -= count
            continue
        if is_table and not left & 1 and mark in _ARRAYS:
            raise DecodeError("an array is a key of a table")
        left -= 1
        if mark in _PAYLOADS:
            at = _after_payload(data, at)
            continue
        around.append((left, is_table))
        if len(around) > MAX_DEPTH + 1:
            raise DecodeError(f"the value is nested deeper than {MAX_DEPTH} levels")
        width = _HEADS.get(mark, 0)
        members = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else mark & 0x0F
        is_table = 0x80 <= mark <= 0x8F or mark >= 0xDE
        left = 2 * members if is_table else members
        at += 1 + width


def _size(mark: int) -> int:
    """Bytes of a value that its first byte tells; 0 for containers and what has a length of its own."""
    if 0x80 <= mark <= 0x9F or mark in _HEADS or mark in _PAYLOADS:
        return 0
    if 0xA0 <= mark <= 0xBF:
        return 1 + (mark & 0x1F)
    numbers = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    extensions = {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
    return (numbers | extensions).get(mark, 1)


_SIZES = bytes(_size(mark) for mark in range(256))
_ALIKE = {size: bytes(mark for mark in range(256) if _SIZES[mark] == size) for size in set(_SIZES)}
