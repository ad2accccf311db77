"""print() inside a worker: text goes to the host as messages, in order with effects; never as bytes among the frames."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

from fxcell.sandbox import wire

_CHUNK_BYTES = 32 * 1024


class HostStream(io.TextIOBase):
    """A text stream whose lines become output messages. `buffer` takes bytes, as that of any sys.stdout."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, channel: wire.Channel, number: int, name: str) -> None:
        self.buffer = _Bytes(self)
        self.name = name
        self._channel = channel
        self._number = number
        self._turn = threading.RLock()
        self._pending = bytearray()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Take text; whole lines are sent at once."""
        self.write_bytes(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def write_bytes(self, data: Any) -> int:
        """Take bytes; what ends in a line end, or fills a chunk, is sent."""
        with self._turn:
            self._channel.acts += 1
            self._pending += data
            if b"\n" in data or len(self._pending) >= _CHUNK_BYTES:
                self.flush()
        return len(data)

    def flush(self) -> None:
        """Send what is there."""
        if not self._pending:
            return
        with self._turn:
            data, self._pending = bytes(self._pending), bytearray()
            for start in range(0, len(data), _CHUNK_BYTES):
                message = wire.Message.new_message()
                chunk = message.init("output")
                chunk.stream, chunk.data = self._number, data[start : start + _CHUNK_BYTES]
                self._channel.send(message)


class _Bytes(io.RawIOBase):
    def __init__(self, stream: HostStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._stream.write_bytes(memoryview(data).cast("B"))

    def flush(self) -> None:
        self._stream.flush()


def replace_streams(channel: wire.Channel) -> tuple[HostStream, HostStream]:
    """Give sys.stdout and sys.stderr of this process to the host; sys.stdin is empty.

    Descriptors 1 and 2 stay what they are, pipes to the supervisor: what C code writes there ends up in the evidence.
    """
    streams = HostStream(channel, 1, "<stdout>"), HostStream(channel, 2, "<stderr>")
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc, assignment]
    sys.stdin = io.StringIO("")
    return streams
