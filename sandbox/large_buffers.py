"""Large buffers of a value: whose memory they are, and what follows a frame while it is still coming."""

from __future__ import annotations

import sys
from typing import Any

from fxcell.sandbox.kernel import memfd

_FORGET_BYTES = 128 * 1024


def parts(whole: memoryview, lengths: list[int]) -> list[memoryview]:
    """The buffers that lie one after another in `whole`."""
    found, offset = [], 0
    for length in lengths:
        found.append(whole[offset : offset + length])
        offset += length
    return found


class Arrival:
    """A message whose buffers follow its frame, as far as they have come. Each is made when its first byte is due.

    rest: where the next bytes go; it never outlives the buffer in `whole` that it is of.
    """

    def __init__(self, message: Any, lengths: list[int]) -> None:
        self.message = message
        self.whole: list[memoryview] = []
        self.rest = memoryview(b"")
        self._lengths = lengths[::-1]
        self._lost = False

    def next(self) -> bool:
        """Go on to the next buffer; False when all are there. Without memory for one, what comes is read and forgotten."""
        if not self._lengths:
            return False
        length = self._lengths.pop()
        if not self._lost:
            try:
                data, self.rest = memfd.unfilled(length)
            except MemoryError:
                self._lost = True
            else:
                self.whole.append(memoryview(data))
                return True
        self.rest, self.whole = memoryview(bytearray(min(length, _FORGET_BYTES))), []
        if length > self.rest.nbytes:
            self._lengths.append(length - self.rest.nbytes)
        return True

    def take(self, data: memoryview) -> None:
        """Put bytes in their place, at most as many as are missing of this buffer."""
        self.rest[: data.nbytes] = data
        self.rest = self.rest[data.nbytes :]


def is_array(owner: object) -> bool:
    """True for an ndarray, wherever numpy is loaded at all."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(owner, numpy.ndarray)


def as_bytes(view: memoryview) -> bytes:
    """The bytes that came behind a frame, which nobody else has; a copy of any other buffer."""
    owner = view.obj
    return owner if type(owner) is bytes and len(owner) == view.nbytes else memfd.copied(view)


def owner_of(buffer: memoryview) -> object:
    """The object whose memory a buffer is: below the views of numpy, and the memoryview that they are of."""
    owner: Any = buffer.obj
    numpy = sys.modules.get("numpy")
    while numpy is not None and isinstance(owner, numpy.ndarray) and owner.base is not None:
        owner = owner.base
    return owner.obj if type(owner) is memoryview else owner
