"""Against messages that are small to send and slow, or large, to decode.

Keys chosen so that their hashes are equal make every insertion as slow as the table is long, and keys can be made that are
slow to compare: a large integer beside a Decimal of the same hash stops the interpreter for minutes. The hash of text and
bytes has a secret key, and at most about 50 numbers of 64 bits share one; everything else can be made to measure.

So values that can be made to measure are held back from msgspec, which builds tables without asking (`Guard.hold`): they
have no hash there, and honest senders put such keys into an extension of their own (Ext.TABLE). Sets and those tables are
looked at before they are built (`checked`). And a message holds so many extensions at most: each is a call of Python code.
How much memory it may ask for is decoded_size.py's business.
"""

from __future__ import annotations

import datetime
import decimal
import sys
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fxcell.policies.errors import DecodeError
from fxcell.policies.value_types import Ext

EXTENSIONS_MAX = 250_000
"""Values in one message that MessagePack does not have itself: about a second's work."""
OWN_MAX = 1000
"""Of these, effects, handles and policies."""

SAME_HASH_MAX = 32
KEY_PARTS_MAX, KEY_BITS_MAX, KEY_DIGITS_MAX = 1000, 1024, 400

_SAFE_RECURSION = 10_000

_OWN = frozenset({Ext.EFFECT, Ext.WORKER_PROCESS, Ext.POLICY})
_NOT_HELD = frozenset({Ext.BUFFER, Ext.SURROGATE_TEXT, Ext.DATETIME, Ext.DATE, Ext.TIME, Ext.NDARRAY})
_NOT_CONTAINERS = bytes(
    set(range(256)) - {*range(0x80, 0xA0), *range(0xDC, 0xE0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)}
)
_QUICK = frozenset({str, bytes, float, bool, type(None), uuid.UUID, complex, datetime.timedelta, datetime.date})
_UNMADE = frozenset({str, bytes, float, bool, type(None)})
_QUICK_TO_COMPARE = _QUICK | {datetime.datetime, datetime.time}


class Held:
    """A value on its way through msgspec that cannot become a key there: it has no hash."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return self is other


class Guard:
    """Goes with the decoding of one message from somebody who may be an enemy."""

    def __init__(self) -> None:
        self._extensions = self._own = 0
        self._held = False

    def count(self, number: int) -> None:
        """One more extension. Raises DecodeError when there have been too many."""
        self._extensions += 1
        if self._extensions > EXTENSIONS_MAX:
            raise DecodeError(f"a message holds more than {EXTENSIONS_MAX} values that are not plain")
        if number in _OWN:
            self._own += 1
            if self._own > OWN_MAX:
                raise DecodeError(f"a message holds more than {OWN_MAX} effects, handles and policies")

    def hold(self, number: int, value: Any) -> Any:
        """The value, or Held when its sender could choose its hash or it is a container done with."""
        if number in _NOT_HELD:
            return value
        self._held = True
        return Held(value)

    def release(self, value: Any) -> Any:
        """The value with everything held in it put back; lists and tables are changed in place."""
        if not self._held:
            return value
        if type(value) is Held:
            return value.value
        left: list[Any] = [value]
        while left:
            container = left.pop()
            if type(container) is list:
                pairs: Iterable[tuple[Any, Any]] = enumerate(container)
            elif type(container) is dict:
                pairs = container.items()  # values are replaced, keys stay: its size does not change
            else:
                continue
            for key, item in pairs:
                if type(item) is Held:
                    container[key] = item.value
                elif type(item) is list or type(item) is dict:
                    left.append(item)
        return value


def check_depth(data: bytes | memoryview) -> None:
    """Raise DecodeError for a message that could be nested deeper than the stack of a host with a raised recursion limit.

    Python 3.11 bounds C recursion by that limit; from 3.12 on it has one of its own. Bytes that could start a container
    are counted, wherever they stand.
    """
    if sys.version_info >= (3, 12) or sys.getrecursionlimit() <= _SAFE_RECURSION or len(data) <= _SAFE_RECURSION:
        return
    count = len(bytes(data).translate(None, _NOT_CONTAINERS))
    if count > _SAFE_RECURSION:
        raise DecodeError(
            f"a message of {len(data)} bytes could hold {count} containers; {_SAFE_RECURSION} are allowed in a host with a "
            f"recursion limit of {sys.getrecursionlimit()}"
        )


def checked(keys: list[Any]) -> list[Any]:
    """The keys of a table, or members of a set, if they can be put into one quickly.

    Raises: DecodeError - too many with one hash, or one that is slow to compare; TypeError for one that has no hash.
    """
    for key in keys:
        if type(key) not in _QUICK_TO_COMPARE:
            _weigh(key, 0)
    if len(keys) > SAME_HASH_MAX:
        # Not counted: what no message can hold enough of with one hash. The count takes more memory than the table.
        made = [key for key in keys if not _is_unmade(key)]
        most = max(Counter(map(hash, made)).values(), default=0)
        if most > SAME_HASH_MAX:
            raise DecodeError(f"{most} keys of a table or set have the same hash")
    return keys


def _is_unmade(key: Any) -> bool:
    """True for a text, bytes, a float or an integer of 64 bits, whose hash its sender cannot choose."""
    kind = type(key)
    return kind in _UNMADE or (kind is int and -(2**63) <= key < 2**64)


def _weigh(key: Any, parts: int) -> int:
    """Count the parts of a key; DecodeError for one that is large, or of a type whose comparison runs other code."""
    parts += 1
    kind = type(key)
    if kind is int:
        if key.bit_length() > KEY_BITS_MAX:
            raise DecodeError(f"an integer of {key.bit_length()} bits is a key; {KEY_BITS_MAX} bits are allowed")
    elif kind is decimal.Decimal:
        if len(key.as_tuple().digits) > KEY_DIGITS_MAX:
            raise DecodeError(f"a Decimal of more than {KEY_DIGITS_MAX} digits is a key")
    elif kind is tuple or kind is frozenset:
        for part in key:
            parts = _weigh(part, parts)
    elif kind not in _QUICK_TO_COMPARE and kind.__module__ != "numpy" and kind.__name__ != "WorkerProcess":
        raise DecodeError(f"a {kind.__name__} is a key of a table or member of a set")
    if parts > KEY_PARTS_MAX:
        raise DecodeError(f"a key has more than {KEY_PARTS_MAX} parts")
    return parts


def table(flat: list[Any]) -> dict[Any, Any]:
    """A dict from [key, value, key, value …]. Raises as checked, and ValueError for half a pair."""
    return dict(zip(checked(flat[0::2]), flat[1::2], strict=True))
