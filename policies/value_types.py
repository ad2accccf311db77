"""What the two halves of the codec share: extension numbers, limits, and what an encoded value consists of."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxcell.policies.calls import Definition

OUT_OF_BAND_BYTES = 64 * 1024
"""Buffers of at least this size leave the MessagePack body when the caller can carry them separately (`pack`)."""

MAX_DEPTH = 200
"""Nesting of containers, both ways. CPython's own recursion limit is 1000 and each level costs up to four frames."""


class Ext(IntEnum):
    """MessagePack extension numbers; a number is never reused for another meaning."""

    EFFECT = 1
    CALL = 2
    TUPLE = 3
    SET = 4
    FROZENSET = 5
    COMPLEX = 6
    DATETIME = 7
    DATE = 8
    TIME = 9
    TIMEDELTA = 10
    DECIMAL = 11
    UUID = 12
    NDARRAY = 13
    NUMPY_SCALAR = 14
    BIG_INTEGER = 15
    SURROGATE_TEXT = 16
    BUFFER = 17
    WORKER_PROCESS = 18
    POLICY = 19
    TABLE = 20


@dataclass(slots=True)
class Packed:
    """An encoded value: the MessagePack body, the buffers set aside from it, the definitions its calls refer to."""

    body: bytes
    buffers: list[memoryview] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """Size of body and buffers together."""
        return len(self.body) + (sum(buffer.nbytes for buffer in self.buffers) if self.buffers else 0)


SCALARS: frozenset[type] = frozenset({int, float, str, bool, type(None)})
PLAIN_IN_LINE = SCALARS | {list, dict}
PLAIN = PLAIN_IN_LINE | {bytes}
"""The types that MessagePack has itself; bytes may have to travel beside the body."""

EXACT_DTYPE = re.compile(
    r"[<>|](?:b1|i[1248]|u[1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU][1-9]\d{0,8}|[mM]8(?:\[\w{1,12}\])?)"
)
"""The array types that travel: numbers and texts of a fixed size, never Python objects."""

PARTS: dict[type, Callable[[Any], object]] = {}
"""Type of our own (effects, calls …) -> the plain parts of a value, which can hold further values."""


def is_plain(value: object, plain: frozenset[type]) -> bool:
    """True when the value and all in it are of these types, which MessagePack has, and at most MAX_DEPTH levels deep.

    Asks the garbage collector what containers hold: it looks at a value in C, some twenty times as fast as a walk.
    """
    kind = type(value)
    if kind in SCALARS or kind not in plain:
        return kind in plain
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = gc.get_referents(*level)  # of a scalar: nothing
        if not level:
            return True
        if not plain.issuperset(map(type, level)):
            return False
    return False
