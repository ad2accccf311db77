"""Frames over a stream socket: length cap first, then Cap'n Proto with explicit limits; large buffers beside or behind it.

    channel = Channel(socket, max_value_bytes=…)
    channel.send(message)              channel.send_value("run", id, packed)
    message = channel.receive(deadline=…)      value = channel.value_of(message.run, allow_calls=…)

The same code on both sides. What arrives may come from an enemy: every way in which bytes can be wrong ends as
WireError, before anything is allocated for them beyond the frame cap; large buffers take memory as they come.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

import capnp

from fxcell.policies import decoded_size, values
from fxcell.policies.errors import DecodeError, MessageTooLarge
from fxcell.sandbox import value_frames
from fxcell.sandbox.kernel import memfd
from fxcell.sandbox.large_buffers import Arrival, as_bytes, is_array, owner_of, parts
from fxcell.sandbox.stream import FDS_MAX, ChannelClosed, DeadlinePassed, Stream, WireError

__all__ = [
    "FDS_MAX", "FRAME_BYTES_MAX", "IN_FLIGHT_CAUSE", "IN_FLIGHT_RETRY_S", "MAGIC", "NO_DESCRIPTOR", "Channel", "ChannelClosed",
    "DeadlinePassed", "Message", "WireError", "pause", "schema",
]  # fmt: skip

capnp.remove_import_hook()
schema: Any = capnp.load(os.path.join(os.path.dirname(os.path.realpath(__file__)), "messages.capnp"))
Message: Any = schema.Message
value_frames.check_against(Message)

MAGIC = b"FXC1"
_HEADER = struct.Struct("<4sI")
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Cap of one frame. Large buffers are not in it; what a decoded one may cost: Channel.decoded_bytes_max."""

_BEHIND = 0
"""As the first of a value's lengths: its buffers follow the frame, as they are."""
IN_FLIGHT_RETRY_S = 0.02
"""How long to wait before the kernel is asked again to take a descriptor."""

NO_DESCRIPTOR = (errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE)
"""The process may open no more, or the kernel takes no more on their way."""
_TRAVERSAL_WORDS = FRAME_BYTES_MAX // 8 * 2
_NESTING_MAX = 16

_SPAWNED_FDS = 3
_VALUE_KINDS = ("run", "effect", "effectResult", "result", "batch")


def _fds_needed(kind: str, message: Any) -> int:
    if kind in _VALUE_KINDS:
        lengths = getattr(message, kind).buffers
        return 1 if len(lengths) and lengths[0] != _BEHIND else 0
    return {"spawned": _SPAWNED_FDS, "area": 1}.get(kind, 0)


def _value_message(kind: str, number: int, body: bytes, lengths: list[int]) -> bytes:
    message = Message.new_message(id=number)
    value = message.init(kind)
    value.body = body
    value.buffers = lengths
    return bytes(message.to_bytes())


IN_FLIGHT_CAUSE = (
    "Descriptors on their way through sockets are counted for all processes of one user together: a worker of this user, "
    "of this host or another, has sent some that nobody took; stopping it gives them back"
)
"""What is behind ETOOMANYREFS, for the errors that it ends in."""


def pause(seconds: float) -> None:
    """Wait, by a call that every worker has."""
    select.poll().poll(seconds * 1000)


class Channel(Stream):
    """One end of a stream of frames. Any thread may send; one at a time receives.

    max_value_bytes: cap of a value's body and buffers together, either way.
    decoded_bytes_max: cap of the memory that a received value takes once it is decoded, buffers aside.
    passes_on:       a value that is the whole sealed memory of the last message goes back as that memory, without a copy.
                     Off where values of several others come together: an open file that they share is a way between them.
    spin, acts:      as of Stream.
    """

    def __init__(self, sock: socket.socket, *, max_value_bytes: int, spin: bool = False) -> None:
        super().__init__(sock, spin=spin)
        self.max_value_bytes = max_value_bytes
        self.decoded_bytes_max = decoded_size.BUDGET_MAX_BYTES
        self.passes_on = False
        self._came: object = None
        self._arrival: Arrival | None = None
        self._arrived: list[memoryview] = []

    def close(self) -> None:
        """As of Stream."""
        super().close()
        self._arrival, self._arrived = None, []

    def drop_fds(self) -> None:
        """As of Stream."""
        self._came = None
        super().drop_fds()

    # --- sending

    def send(self, message: Any, fds: Sequence[int] = (), deadline: float | None = None) -> None:
        """Send one message, and descriptors with it.

        deadline: time.monotonic() seconds until when the other side must have made room, or None to wait for ever.
        Raises: MessageTooLarge, BrokenPipeError and ConnectionResetError when the other side is gone, DeadlinePassed.
        """
        self._send_body(message.to_bytes(), fds, deadline)

    def _send_body(
        self, body: bytes, fds: Sequence[int], deadline: float | None, behind: Sequence[memoryview] = ()
    ) -> None:
        if len(body) > FRAME_BYTES_MAX:
            raise MessageTooLarge(f"a message of {len(body)} bytes is over the frame cap of {FRAME_BYTES_MAX} bytes")
        frame = _HEADER.pack(MAGIC, len(body)) + body
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._sending:
            self.acts += 1
            sent = self._send_some(frame, ancillary, deadline)
            while sent < len(frame):
                sent += self._send_some(memoryview(frame)[sent:], [], deadline)
            for buffer in behind:
                rest = buffer
                while rest.nbytes:
                    rest = rest[self._send_some(rest, [], deadline) :]

    def send_value(self, kind: str, number: int, packed: values.Packed, deadline: float | None = None) -> None:
        """Send a `Value` message (run, effect, effectResult, result).

        Arrays travel as sealed memory, which is read without a copy. Large bytes, and arrays where no descriptor can be had
        or sent, follow the frame: the reader would copy them all the same, and memory to seal costs more than the socket.
        Raises: MessageTooLarge when the value is over max_value_bytes, nothing was sent then; as send.
        """
        if packed.total_bytes > self.max_value_bytes or len(packed.body) > FRAME_BYTES_MAX - 4096:
            raise MessageTooLarge(
                f"a value of {packed.total_bytes} bytes is over the cap: message_bytes = {self.max_value_bytes} in the policy, "
                f"and {FRAME_BYTES_MAX - 4096} bytes for everything that is not one large bytes or ndarray"
            )
        if not packed.buffers:
            self._send_body(value_frames.encode(kind, number, packed.body), (), deadline)
            return
        lengths = [buffer.nbytes for buffer in packed.buffers]
        if any(is_array(buffer.obj) for buffer in packed.buffers) and self._send_sealed(
            _value_message(kind, number, packed.body, lengths), packed.buffers, deadline
        ):
            return
        self._send_body(_value_message(kind, number, packed.body, [_BEHIND, *lengths]), (), deadline, packed.buffers)

    def _send_sealed(self, body: bytes, buffers: list[memoryview], deadline: float | None) -> bool:
        """Send a frame with sealed memory; False when there is no descriptor for it, or the kernel takes none."""
        descriptor = -1
        try:
            descriptor = self._as_it_came(buffers)
            self._send_body(body, [descriptor], deadline)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:
                raise
            return False
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return True

    def _as_it_came(self, buffers: list[memoryview]) -> int:
        """A new descriptor of the sealed memory that came last, if the buffer is all of it; else of new memory."""
        if self._came is not None and len(buffers) == 1 and owner_of(buffers[0]) is self._came:
            descriptor = self.received_fds[0]
            if os.fstat(descriptor).st_size == buffers[0].nbytes:
                return os.dup(descriptor)
        return memfd.create(buffers)

    # --- receiving

    def receive(self, deadline: float | None = None) -> Any:
        """Wait for the next message.

        deadline: time.monotonic() seconds, or None to wait for ever.
        After:    descriptors that came with it are in `received_fds` until taken, or closed by the next receive.
        Raises:   WireError, ChannelClosed, DeadlinePassed.
        """
        if self._arrival is not None:
            return self._arrive(self._arrival, deadline)
        if self.received_fds:
            self.drop_fds()
        self._arrived = []
        self._need(_HEADER.size, deadline, first=True)
        magic, length = _HEADER.unpack_from(self._view, self._start)
        if magic != MAGIC:
            raise WireError(f"a frame starts with {bytes(magic)!r} instead of {MAGIC!r}")
        if not 16 <= length <= FRAME_BYTES_MAX:
            raise WireError(f"a frame says it has {length} bytes; 16 to {FRAME_BYTES_MAX} are allowed")
        # Nothing is taken out before the whole frame is there, so that a receive whose deadline passed can be repeated.
        self._need(_HEADER.size + length, deadline)
        start = self._start + _HEADER.size
        body = self._view[start : start + length]
        self._start = start + length
        if not self._fds:
            plain = value_frames.decode(body)
            if plain is not None:
                return plain
        try:
            # from_bytes() would give a context manager, whose message must not outlive it.
            message = next(Message.read_multiple_bytes(bytes(body), _TRAVERSAL_WORDS, _NESTING_MAX))
            kind = message.which()
            needed = _fds_needed(kind, message) if self._fds or kind in ("spawned", "area") else 0
            needed = len(self._fds) if kind == "spawn" else needed  # as many as there are hierarchies of groups
            lengths = list(getattr(message, kind).buffers) if kind in _VALUE_KINDS else []
        except Exception as error:
            raise WireError(f"a frame is not a message: {str(error).partition('stack: ')[0].strip():.200}") from error
        if needed or self._fds:
            self._assign_fds(needed, str(kind))
        if lengths and lengths[0] == _BEHIND:
            self._check_behind(len(getattr(message, kind).body), lengths[1:])
            self._arrival = Arrival(message, lengths[1:])
            return self._arrive(self._arrival, deadline)
        return message

    def _check_behind(self, body_bytes: int, lengths: list[int]) -> None:
        if min(lengths, default=0) < values.OUT_OF_BAND_BYTES:
            raise WireError("a value names buffers behind it that nobody sets aside")
        if body_bytes + sum(lengths) > self.max_value_bytes:
            raise WireError(f"a value of {body_bytes + sum(lengths)} bytes is over the cap of {self.max_value_bytes} bytes")

    def _arrive(self, arrival: Arrival, deadline: float | None) -> Any:
        """Take in what follows a frame. As all of receive, it goes on where it was when a deadline passed."""
        while arrival.rest.nbytes or arrival.next():
            ready = min(self._end - self._start, arrival.rest.nbytes)
            if ready:
                arrival.take(self._view[self._start : self._start + ready])
                self._start += ready
                continue
            arrival.rest = arrival.rest[self._receive_into(arrival.rest, deadline) :]
            if self._fds:
                self._refuse_fds("descriptors came with what follows a frame")
        self._arrival = None
        self._arrived = arrival.whole
        return arrival.message

    def value_of(self, value: Any, *, allow_calls: bool) -> Any:
        """Decode the `Value` of the message just received, mapping its sealed memory if it has any.

        Raises: WireError.
        """
        try:
            lengths = list(value.buffers)
            body = value.body
        except Exception as error:
            raise WireError(f"a value message is malformed: {error}") from error
        if len(body) > self.max_value_bytes:
            raise WireError(f"a value of {len(body)} bytes is over the cap of {self.max_value_bytes} bytes")
        try:
            if lengths and lengths[0] == _BEHIND:
                buffers, self._arrived = self._arrived, []
                if not buffers:
                    raise MemoryError(f"no memory for a value of {sum(lengths)} bytes")
            else:
                buffers = self._buffers(lengths, len(body))
            return values.decode_value(
                body, allow_calls=allow_calls, buffers=buffers, budget_bytes=self.decoded_bytes_max, copy=as_bytes
            )
        except DecodeError as error:
            raise WireError(str(error)) from error

    def _assign_fds(self, needed: int, kind: str) -> None:
        # One read may take in several frames and the descriptors of the last: they belong to the frame that needs them.
        have = len(self._fds)
        if have < needed or (have > needed and self._start == self._end):
            self.drop_fds()
            raise WireError(f"{have} descriptors came with a {kind} message that needs {needed}")
        self.received_fds, self._fds = self._fds[:needed], self._fds[needed:]

    def _buffers(self, lengths: list[int], body_bytes: int) -> list[memoryview]:
        if not lengths:
            return []
        total = sum(lengths)
        if min(lengths) < values.OUT_OF_BAND_BYTES:
            raise WireError("a value names buffers beside it that nobody sets aside")
        if body_bytes + total > self.max_value_bytes:
            raise WireError(f"a value of {body_bytes + total} bytes is over the cap of {self.max_value_bytes} bytes")
        if not self.received_fds:
            raise WireError("a value names buffers, but no sealed memory came with it")
        whole = None
        try:
            whole = memfd.map_sealed(self.received_fds[0], size_bytes=total)
        finally:
            if whole is None or len(lengths) > 1 or not self.passes_on:
                self.drop_fds()
            else:
                self._came = whole.obj  # until the next message
        return parts(whole, lengths)

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(mid_frame=self._end > self._start or self._arrival is not None)
