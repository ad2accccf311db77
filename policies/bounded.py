"""The repr of any value, in a bounded number of characters and at a cost that follows from them, not from the value.

Error texts, FX.Print and FX.Log show what a worker sent. The whole repr of 100 MB takes seconds and most of a gigabyte,
wherever in a value the 100 MB are; cut afterwards, it has been paid for already. So containers of every type that the
codec knows are walked here, member by member, until what may be shown is full:

    value --walk--> pieces of text, each cut to the room that is left --join--> text

Our own types (effects, calls …) say by `_shown()` what they consist of: how the text opens, labelled parts, how it ends.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterable
from typing import Any

LEVELS_MAX = 100
"""Containers in containers that are walked: below the recursion limit of any host, and the end of a list that holds itself."""

_INTEGER_BITS_MAX = 14_000
"""About 4200 digits: CPython refuses to write more than 4300, and takes time that grows with their square."""
_DECIMAL_BYTES_MAX = 2048
_ARRAY_ITEMS_MAX, _ARRAY_BYTES_MAX, _ARRAY_ITEM_BYTES_MAX, _ARRAY_DIMENSIONS_MAX = 1000, 64 * 1024, 64, 3

_OPEN_CLOSE: dict[type, tuple[str, str]] = {
    list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("frozenset({", "})"),
}  # fmt: skip
_SHORT = frozenset({
    bool, float, complex, type(None), uuid.UUID,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
})  # fmt: skip


def bounded(value: object, characters: int) -> tuple[str, bool]:
    """The repr of the value, cut to that many characters, and whether it was cut.

    What cannot be cut is described instead: <int of 90000 bits>, <ndarray (1000, 1000) float64>. Raises: nothing for
    what the codec carries; what its own __repr__ raises for a value of another type.
    """
    writer = _Writer(characters)
    writer.write(value, 0)
    text = "".join(writer.pieces)
    return text[:characters], writer.left < 0


def bounded_text(value: object, characters: int) -> str:
    """str() of the value in place of its repr: a text is itself; otherwise as `bounded`."""
    if isinstance(value, str):
        return value[:characters]
    if _is_array(value):
        return _array(value, str)[:characters]
    return bounded(value, characters)[0]


class _Writer:
    def __init__(self, characters: int) -> None:
        self.pieces: list[str] = []
        self.left = characters

    def put(self, text: str) -> None:
        self.pieces.append(text)
        self.left -= len(text)

    def write(self, value: Any, level: int) -> None:
        kind = type(value)
        if kind in _SHORT:
            self.put(repr(value))
        elif isinstance(value, str | bytes | bytearray):
            self._put_text(value)
        elif kind is int:
            self.put(repr(value) if value.bit_length() <= _INTEGER_BITS_MAX else f"<int of {value.bit_length()} bits>")
        elif kind is decimal.Decimal:
            size = value.__sizeof__()
            self.put(repr(value) if size <= _DECIMAL_BYTES_MAX else f"<Decimal of {size} bytes>")
        elif level >= LEVELS_MAX and (kind in _OPEN_CLOSE or kind is dict or hasattr(kind, "_shown")):
            self.put("…")
        elif kind in _OPEN_CLOSE:
            self._put_members(kind, value, level + 1)
        elif kind is dict:
            self._put_table(value, level + 1)
        elif hasattr(kind, "_shown"):
            self._put_own(value._shown(), level + 1)
        else:
            self.put(_array(value, repr) if _is_array(value) else repr(value))

    def _put_text(self, value: Any) -> None:
        room = max(self.left, 0)
        if len(value) <= room:
            self.put(repr(value))
        else:
            self.put(repr(value[: room + 1]))
            self.left = min(self.left, -1)  # the closing quotation mark stands where no end is

    def _put_members(self, kind: type, value: Any, level: int) -> None:
        opening, closing = _OPEN_CLOSE[kind]
        if not value and kind in (set, frozenset):
            self.put(f"{kind.__name__}()")
            return
        self._put_parts(opening, (("", item) for item in value), ",)" if kind is tuple and len(value) == 1 else closing, level)

    def _put_table(self, value: dict[Any, Any], level: int) -> None:
        self.put("{")
        for number, (key, item) in enumerate(value.items()):
            if self.left < 0:
                return
            if number:
                self.put(", ")
            self.write(key, level)
            self.put(": ")
            if self.left < 0:
                return
            self.write(item, level)
        self.put("}")

    def _put_own(self, shown: tuple[str, Iterable[tuple[str, Any]], str], level: int) -> None:
        self._put_parts(*shown, level)

    def _put_parts(self, opening: str, parts: Iterable[tuple[str, Any]], closing: str, level: int) -> None:
        self.put(opening)
        for number, (label, item) in enumerate(parts):
            if self.left < 0:
                return
            if number:
                self.put(", ")
            if label:
                self.put(label[: max(self.left, 0) + 1])
            self.write(item, level)
        self.put(closing)


def _is_array(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "itemsize")


def _array(value: Any, text: Callable[[Any], str]) -> str:
    """Numpy's own text where that is short; it leaves out the middle of each axis, which is no help with many axes."""
    if value.nbytes <= _ARRAY_BYTES_MAX and value.size <= _ARRAY_ITEMS_MAX:
        return text(value)
    if value.itemsize <= _ARRAY_ITEM_BYTES_MAX and value.ndim <= _ARRAY_DIMENSIONS_MAX:
        return text(value)
    return f"<{type(value).__name__} {value.shape} {value.dtype}>"
