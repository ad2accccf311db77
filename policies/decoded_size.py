"""How much memory a message takes once it is decoded, found out before it is: at most BUDGET_MAX_BYTES, else DecodeError.

Three bytes of MessagePack (81 00 00) become a table of 240 bytes, one byte (e0) an integer of 32: 16 MiB can ask for 1.5 GB,
built by msgspec in seconds during which no other thread of the host runs. So three looks, each only where the one before
it leaves doubt, at what a value costs by its first byte (a table of up to five entries 240 bytes, a list 88, a text 64 and
more, a number 32, and 24 for its place in a container and on the lists of those who walk it):

    length x the dearest byte there is                          nothing: small messages end here
    length x a small number + costly bytes x the dearest        bytes.translate: 1 ns a byte; lists of integers end here
    every value by itself, payloads skipped over                100 ns a value: 0.1 s for a million floats, 2 s at worst

Only the last one refuses: payloads of texts, bytes, floats and arrays look like anything, but are skipped by their length.
It counts short texts as if they held a character of four bytes, and keys, which msgspec shares, each time: up to 2.5 times
what they take. Everything else is within a third of what was measured on CPython 3.11.
"""

from __future__ import annotations

from fxcell.policies.errors import DecodeError
from fxcell.policies.value_types import Ext

MiB = 1 << 20
BUDGET_MIN_BYTES, BUDGET_MAX_BYTES = 256 * MiB, 512 * MiB

_PLACE, _PLACE_AT_MOST = 24, 32  # the latter with its part of a table whose number of entries is not looked at
_LIST, _NUMBER, _LONG_NUMBER = 88, 32, 48
_TABLE, _TABLE_ENTRY, _TABLES = 80, 64, ((0, 80), (5, 240), (10, 368), (15, 656))
_EXTENSION, _TUPLE_PART, _SET_PART = 300, 16, 96
_DEAREST, _DEAREST_PER_BYTE = 656 + _PLACE, 136  # a table in a table in a table …: 2 bytes each


def budget_bytes(memory_bytes: int) -> int:
    """What a result may take, from what its worker may use: an honest value took about as much there.

    At least BUDGET_MIN_BYTES, because of what is counted twice; at most BUDGET_MAX_BYTES, for the host's sake.
    """
    return min(max(memory_bytes, BUDGET_MIN_BYTES), BUDGET_MAX_BYTES)


def check(data: bytes | memoryview, budget: int) -> None:
    """Raise DecodeError for a message whose decoded value could take more than `budget` bytes."""
    if len(data) * _DEAREST_PER_BYTE <= budget:
        return
    data = bytes(data)
    if len(data) * _PLACE_AT_MOST + len(data.translate(None, _CHEAP)) * _DEAREST <= budget:
        return
    try:
        left = _walk(data, budget)
    except IndexError:
        return  # cut off in the middle of a value: what decodes it says so
    if left < 0:
        raise DecodeError(f"a message of {len(data)} bytes would take more than {budget >> 20} MiB once it is decoded")


def _walk(data: bytes, left: int) -> int:
    """What is left after every value in the data, below 0 as soon as it is too little. Raises IndexError at a cut."""
    costs, sizes, at, end = _COSTS, _SIZES, 0, len(data)
    while at < end and left >= 0:
        mark = data[at]
        left -= costs[mark]
        size = sizes[mark]
        if size:
            at += size
        elif mark in (0xC4, 0xD9):  # what _variable would say, for what is frequent
            size = data[at + 1]
            at += 2 + size
            left -= 48 + size if mark == 0xC4 else _text(size)
        else:
            size, cost = _variable(data, at, mark)
            at += size
            left -= cost
    return left


def _variable(data: bytes, at: int, mark: int) -> tuple[int, int]:
    """Bytes to go on by, and the cost, of a value whose first byte does not tell."""
    width = _WIDTHS[mark]
    number = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else 1 << (mark - 0xD4)
    if mark in _TEXTS:
        return 1 + width + number, _text(number)
    if mark in _BYTES:
        return 1 + width + number, 48 + number
    if mark in _LISTS:
        return 1 + width, _LIST
    if mark in _MAPS:
        return 1 + width, _TABLE + 160 + _TABLE_ENTRY * number
    head = 2 + width
    kind = data[at + head - 1]
    if kind not in _NESTED:
        return head + number, _EXTENSION + 5 * number
    part = _TUPLE_PART if kind == Ext.TUPLE else _SET_PART if kind in _TABLES_OF_KEYS else 0
    return head, _EXTENSION + (part and part * _members(data, at + head))


def _members(data: bytes, at: int) -> int:
    """The length of the list that begins here; 0 where none does, which the decoder refuses."""
    mark = data[at]
    if 0x90 <= mark <= 0x9F:
        return mark & 0x0F
    return int.from_bytes(data[at + 1 : at + 1 + _WIDTHS[mark]], "big") if mark in _LISTS else 0


def _text(size: int) -> int:
    """Memory of a text of that many bytes in UTF-8, as if one character took four bytes: then all of them do."""
    if size < 2:
        return 0  # one object for all
    return 64 if size == 2 else 80 + 4 * max(size - 3, 0)


_TEXTS, _BYTES, _LISTS, _MAPS = {0xDA, 0xDB}, {0xC5, 0xC6}, {0xDC, 0xDD}, {0xDE, 0xDF}
_WIDTHS = {
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD4: 0, 0xD5: 0, 0xD6: 0, 0xD7: 0, 0xD8: 0,
    0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip
"""First byte of a value with a length of its own -> bytes of that length; 0 for the extensions of 1, 2, 4, 8, 16 bytes."""

_TABLES_OF_KEYS = frozenset({Ext.SET, Ext.FROZENSET, Ext.TABLE})
_NESTED = _TABLES_OF_KEYS | {
    Ext.TUPLE, Ext.EFFECT, Ext.CALL, Ext.DATETIME, Ext.DATE, Ext.TIME, Ext.TIMEDELTA, Ext.DECIMAL, Ext.NDARRAY, Ext.NUMPY_SCALAR,
    Ext.WORKER_PROCESS, Ext.POLICY,
}  # fmt: skip


def _cost(mark: int) -> int:
    if 0x80 <= mark <= 0x8F:
        return next(cost for most, cost in _TABLES if mark & 0x0F <= most)
    if 0x90 <= mark <= 0x9F:
        return _LIST
    if 0xA0 <= mark <= 0xBF:
        return _text(mark & 0x1F)
    if mark in (0xCF, 0xD3):
        return _LONG_NUMBER
    # Integers from -5 to 256 are there once for all.
    return _NUMBER if mark in (0xCA, 0xCB, 0xCD, 0xCE, 0xD0, 0xD1, 0xD2) or 0xE0 <= mark <= 0xFA else 0


def _size(mark: int) -> int:
    if mark in _WIDTHS:
        return 0
    if 0xA0 <= mark <= 0xBF:
        return 1 + (mark & 0x1F)
    return {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.get(mark, 1)


_COSTS = tuple(_PLACE + _cost(mark) for mark in range(256))
_SIZES = bytes(_size(mark) for mark in range(256))
_CHEAP = bytes(mark for mark in range(256) if _cost(mark) == 0 and mark not in _WIDTHS)
