"""Against tables and sets that are built to be slow.

Keys chosen so that all their hashes are equal make every insertion as slow as the table is long, and the interpreter stands
still meanwhile: 100,000 tuples of 20 bytes are minutes. The hash of text and bytes has a secret key, and at most about 50
numbers of 64 bits share one; tuples, large integers and the like can be made to measure.

So keys that can be made are checked before a table is built. Where msgspec itself builds the table there is no moment to
check: there a message may hold a few such values as keys, and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fxcell.policies.errors import DecodeError
from fxcell.policies.value_types import Ext

SAME_HASH_MAX = 100
FREE = 1000
"""So many values that can be made to measure cost nothing worth counting, wherever they stand in a message."""

SMALL_BYTES = 3 * FREE
"""No more than FREE extensions fit into so many bytes: each takes three at least."""

CAN_BE_MADE = frozenset(
    {Ext.TUPLE, Ext.FROZENSET, Ext.COMPLEX, Ext.TIMEDELTA, Ext.DECIMAL, Ext.UUID, Ext.BIG_INTEGER, Ext.NUMPY_SCALAR, Ext.EFFECT}
)


class Held:
    """A value on its way through msgspec that cannot become a key there: it has no hash."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return self is other


class Guard:
    """Counts, over one message, the values whose hash the sender could choose."""

    def __init__(self) -> None:
        self.seen = 0

    def hold(self, number: int, value: Any) -> Any:
        """The value itself, or Held once there have been too many."""
        if number not in CAN_BE_MADE:
            return value
        self.seen += 1
        return value if self.seen <= FREE else Held(value)

    def release(self, value: Any) -> Any:
        """The value with everything held in it put back; lists and tables are changed in place."""
        if self.seen <= FREE:
            return value
        if type(value) is Held:
            return value.value
        left: list[Any] = [value]
        while left:
            container = left.pop()
            if type(container) is list:
                pairs: Iterable[tuple[Any, Any]] = enumerate(container)
            elif type(container) is dict:
                pairs = list(container.items())
            else:
                continue
            for key, item in pairs:
                if type(item) is Held:
                    container[key] = item.value
                elif type(item) is list or type(item) is dict:
                    left.append(item)
        return value


def checked(keys: list[Any]) -> list[Any]:
    """The keys. Raises DecodeError when too many of them have one hash, TypeError for one that has none."""
    if len(keys) > SAME_HASH_MAX:
        _, most = Counter(map(hash, keys)).most_common(1)[0]
        if most > SAME_HASH_MAX:
            raise DecodeError(f"{most} keys of a table or set have the same hash")
    return keys


def table(flat: Iterable[Any]) -> dict[Any, Any]:
    """A dict from [key, value, key, value …]. Raises as checked, and ValueError for half a pair."""
    flat = list(flat)
    return dict(zip(checked(flat[0::2]), flat[1::2], strict=True))
