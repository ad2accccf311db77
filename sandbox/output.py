"""print() inside a worker: text goes to the host as messages, in order with effects; never as bytes among the frames."""

from __future__ import annotations

import io
import sys
from typing import Any

from fxcell.sandbox import wire

_CHUNK_BYTES = 32 * 1024


class _ToHost(io.RawIOBase):
    def __init__(self, channel: wire.Channel, stream: int) -> None:
        self._channel = channel
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, view.nbytes, _CHUNK_BYTES):
            message = wire.Message.new_message()
            chunk = message.init("output")
            chunk.stream, chunk.data = self._stream, bytes(view[start : start + _CHUNK_BYTES])
            self._channel.send(message)
        return view.nbytes


def replace_streams(channel: wire.Channel) -> None:
    """Give sys.stdout and sys.stderr of this process to the host; sys.stdin is empty.

    Descriptors 1 and 2 stay what they are, pipes to the supervisor: what C code writes there ends up in the evidence.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = io.BufferedWriter(_ToHost(channel, number), _CHUNK_BYTES)
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n")
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    sys.stdin = io.StringIO("")
