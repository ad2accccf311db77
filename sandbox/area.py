"""The results of a batch while it runs: memory that the worker writes and the host reads once the worker has answered or died.

    bytes 0-7     calls that are done (high half), bytes that their results take (low half)
    bytes 8-…     the results, MessagePack, one after another

What is in it survives the worker: a crash in the middle of a batch loses the call that crashed, and no other. The host never
maps it: a copy is read, bounded by what it asks for, and decoded as everything that comes from a worker.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from fxcell.policies import decoded_size, values
from fxcell.policies.errors import DecodeError
from fxcell.policies.running import carries_work
from fxcell.policies.value_types import SCALARS
from fxcell.sandbox import wire

SIZE_BYTES = 256 * 1024
_HEADER = struct.Struct("=Q")
_HEADER_BYTES = 8
_LOW_32 = 0xFFFFFFFF
_encode = msgspec.msgpack.Encoder().encode


class NoArea(Exception):
    """No descriptor can be had or sent for it: calls are to go one by one."""


class HostArea:
    """The host's end: the descriptor. It is sent to the worker once, before its first batch."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("fxcell-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.is_sent = False
        try:
            os.truncate(self.descriptor, SIZE_BYTES)
            # Of one size for ever: a worker could make it larger than any limit counts, or smaller under its own feet.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            self.close()
            raise

    def clear(self) -> None:
        """Before a batch: nothing is done."""
        os.pwrite(self.descriptor, _HEADER.pack(0), 0)

    def results(self, most: int, budget_bytes: int = decoded_size.BUDGET_MAX_BYTES) -> list[Any]:
        """The results of the calls that the worker says are done, at most `most`.

        Raises: WireError - more than that, or bytes that are not so many values.
        """
        header = _HEADER.unpack(os.pread(self.descriptor, _HEADER_BYTES, 0))[0]
        count, size = header >> 32, header & _LOW_32
        if count > most or size > SIZE_BYTES - _HEADER_BYTES:
            raise wire.WireError(f"the worker says that {count} calls of a batch are done, of {most} at most")
        if not count:
            return []
        body = b"\xdd" + struct.pack(">I", count) + os.pread(self.descriptor, size, _HEADER_BYTES)
        try:
            depth_max = values.MAX_DEPTH + 1  # of each result, and the list of them
            results = values.decode_value(body, allow_calls=False, budget_bytes=budget_bytes, depth_max=depth_max)
        except DecodeError as error:
            raise wire.WireError(f"the results of a batch: {error}") from error
        assert type(results) is list
        return results

    def close(self) -> None:
        """Close the descriptor; closed twice is closed once."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class WorkerArea:
    """The worker's end: the mapping."""

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor over."""
        try:
            self._map = mmap.mmap(descriptor, SIZE_BYTES)
        finally:
            os.close(descriptor)
        self._header = memoryview(self._map)[: _HEADER_BYTES].cast("Q")

    def begin(self) -> Callable[[Any], bool]:
        """A batch starts. Answers what keeps the result of the next call.

        It answers False for a result that must travel by itself, and keeps nothing then.
        """
        area, header = self._map, self._header  # a closure: half the time of a method, and called a million times a second
        done, end = 0, _HEADER_BYTES

        def put(result: Any) -> bool:
            nonlocal done, end
            if type(result) in SCALARS:
                try:
                    body = _encode(result)
                except (OverflowError, UnicodeEncodeError):
                    return False
            else:
                packed = values.pack(result)
                if packed.buffers or packed.definitions or carries_work(result):
                    return False
                body = packed.body
            start, end = end, end + len(body)
            if end > SIZE_BYTES:
                return False
            area[start:end] = body
            done += 1
            # One aligned store, after the bytes that it tells of: there is no moment at which the two differ.
            header[0] = done << 32 | end - _HEADER_BYTES
            return True

        return put
