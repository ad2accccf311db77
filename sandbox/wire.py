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
import mmap
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import capnp

from fxcell.policies import decoded_size, values
from fxcell.policies.errors import DecodeError, MessageTooLarge
from fxcell.sandbox import value_frames
from fxcell.sandbox.kernel import memfd

capnp.remove_import_hook()
schema: Any = capnp.load(os.path.join(os.path.dirname(os.path.realpath(__file__)), "messages.capnp"))
Message: Any = schema.Message
value_frames.check_against(Message)

MAGIC = b"FXC1"
_HEADER = struct.Struct("<4sI")
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Cap of one frame. Larger values leave the frame as sealed memory; what a decoded one may cost: Channel.decoded_bytes_max."""

_BEHIND = 0
"""As the first of a value's lengths: its buffers follow the frame, as they are."""
IN_FLIGHT_RETRY_S = 0.02
"""How long to wait before the kernel is asked again to take a descriptor."""

NO_DESCRIPTOR = (errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE)
"""The process may open no more, or the kernel takes no more on their way."""
FDS_MAX = 4
_ANCILLARY_BYTES = socket.CMSG_SPACE(FDS_MAX * 4)
_TRAVERSAL_WORDS = FRAME_BYTES_MAX // 8 * 2
_NESTING_MAX = 16
_READ_BYTES = 128 * 1024
_SPIN_S = 50e-6
# Plain integers: the constants of socket are enums, whose operators are calls of Python code.
_WAIT, _DO_NOT_WAIT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_SEND_NOW, _TRUNCATED = int(socket.MSG_DONTWAIT), int(socket.MSG_CTRUNC)


class WireError(Exception):
    """The bytes on a channel break the protocol. The text says how; the channel is of no further use."""


class ChannelClosed(WireError):
    """The other side is gone. `mid_frame` tells whether it went in the middle of one."""

    def __init__(self, *, mid_frame: bool) -> None:
        super().__init__("the other side closed the channel" + (" in the middle of a frame" if mid_frame else ""))
        self.mid_frame = mid_frame


class DeadlinePassed(Exception):
    """No complete frame came, or none could be sent, before the deadline."""


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


def _parts(whole: memoryview, lengths: list[int]) -> list[memoryview]:
    parts, offset = [], 0
    for length in lengths:
        parts.append(whole[offset : offset + length])
        offset += length
    return parts


class _Arrival:
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
        self.rest, self.whole = memoryview(bytearray(min(length, _READ_BYTES))), []
        if length > self.rest.nbytes:
            self._lengths.append(length - self.rest.nbytes)
        return True

    def take(self, data: memoryview) -> None:
        """Put bytes in their place, at most as many as are missing of this buffer."""
        self.rest[: data.nbytes] = data
        self.rest = self.rest[data.nbytes :]


def _is_array(owner: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(owner, numpy.ndarray)


def _as_bytes(view: memoryview) -> bytes:
    """The bytes that came behind a frame, which nobody else has; a copy of any other buffer."""
    owner = view.obj
    return owner if type(owner) is bytes and len(owner) == view.nbytes else memfd.copied(view)


def _owner(buffer: memoryview) -> object:
    """The object whose memory a buffer is: below the views of numpy, and the memoryview that they are of."""
    owner: Any = buffer.obj
    numpy = sys.modules.get("numpy")
    while numpy is not None and isinstance(owner, numpy.ndarray) and owner.base is not None:
        owner = owner.base
    return owner.obj if type(owner) is memoryview else owner


def _fresh_memory(size: int) -> memoryview:
    # A bytearray is all there from the start; of this only those pages are that something was written to.
    try:
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:
        raise MemoryError(f"no memory for a frame of {size} bytes") from error


IN_FLIGHT_CAUSE = (
    "Descriptors on their way through sockets are counted for all processes of one user together: a worker of this user, "
    "of this host or another, has sent some that nobody took; stopping it gives them back"
)
"""What is behind ETOOMANYREFS, for the errors that it ends in."""


def pause(seconds: float) -> None:
    """Wait, by a call that every worker has."""
    select.poll().poll(seconds * 1000)


class Channel:
    """One end of a stream of frames. Any thread may send; one at a time receives.

    max_value_bytes: cap of a value's body and buffers together, either way.
    decoded_bytes_max: cap of the memory that a received value takes once it is decoded, buffers aside.
    passes_on:       a value that is the whole sealed memory of the last message goes back as that memory, without a copy.
                     Off where values of several others come together: an open file that they share is a way between them.
    spin:            first try without blocking for at most 50 µs after activity; only sensible with idle cores.
    acts:            messages that were sent, and writes to streams that lead to one.
    """

    def __init__(self, sock: socket.socket, *, max_value_bytes: int, spin: bool = False) -> None:
        self.socket = sock
        self.max_value_bytes = max_value_bytes
        self.decoded_bytes_max = decoded_size.BUDGET_MAX_BYTES
        self.passes_on = False
        self.spin = spin
        self._sending = threading.Lock()
        self._pollers = {event: select.poll() for event in (select.POLLIN, select.POLLOUT)}
        for event, poller in self._pollers.items():
            poller.register(sock.fileno(), event)
        self._watched: Channel | None = None
        self._misses = 0
        self.acts = 0
        self._view = _fresh_memory(_READ_BYTES)
        self._start = 0
        self._end = 0
        self._fds: list[int] = []
        self._truncated = False
        self.received_fds: list[int] = []
        self._came: object = None
        self._arrival: _Arrival | None = None
        self._arrived: list[memoryview] = []

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def end_with(self, other: Channel) -> None:
        """From now on, a message or the end on another channel means that nobody is left on this one.

        The end of a process need not close its channel: its peer may hold a copy of that very end, in a message under way.
        """
        self._watched = other
        for poller in self._pollers.values():
            poller.register(other.fileno(), select.POLLIN)

    def close(self) -> None:
        """Close the socket and any descriptor that came and was not taken, and let go of the buffer."""
        self.drop_fds()
        self.socket.close()
        # Hosts remember many workers that have ended: 128 KiB for each would add up.
        self._view = memoryview(b"")
        self._start = self._end = 0
        self._arrival, self._arrived = None, []

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

    def _send_some(self, data: bytes | memoryview, ancillary: list[Any], deadline: float | None) -> int:
        flags = 0 if deadline is None else _SEND_NOW
        while True:
            try:
                return self.socket.sendmsg([data], ancillary, flags)  # never send(), which is a call that workers do not have
            except BlockingIOError:
                assert deadline is not None  # the socket blocks
                self._wait(deadline, select.POLLOUT)

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
        if any(_is_array(buffer.obj) for buffer in packed.buffers) and self._send_sealed(
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
        if self._came is not None and len(buffers) == 1 and _owner(buffers[0]) is self._came:
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
        body = bytes(self._view[start : start + length])
        self._start = start + length
        if not self._fds:
            plain = value_frames.decode(body)
            if plain is not None:
                return plain
        try:
            # from_bytes() would give a context manager, whose message must not outlive it.
            message = next(Message.read_multiple_bytes(body, _TRAVERSAL_WORDS, _NESTING_MAX))
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
            self._arrival = _Arrival(message, lengths[1:])
            return self._arrive(self._arrival, deadline)
        return message

    def _check_behind(self, body_bytes: int, lengths: list[int]) -> None:
        if min(lengths, default=0) < values.OUT_OF_BAND_BYTES:
            raise WireError("a value names buffers behind it that nobody sets aside")
        if body_bytes + sum(lengths) > self.max_value_bytes:
            raise WireError(f"a value of {body_bytes + sum(lengths)} bytes is over the cap of {self.max_value_bytes} bytes")

    def _arrive(self, arrival: _Arrival, deadline: float | None) -> Any:
        """Take in what follows a frame. As all of receive, it goes on where it was when a deadline passed."""
        while arrival.rest.nbytes or arrival.next():
            ready = min(self._end - self._start, arrival.rest.nbytes)
            if ready:
                arrival.take(self._view[self._start : self._start + ready])
                self._start += ready
                continue
            if deadline is not None:
                self._wait(deadline, select.POLLIN)
            arrival.rest = arrival.rest[self._receive_into(arrival.rest, _WAIT) :]
            if self._fds or self._truncated:
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
                body, allow_calls=allow_calls, buffers=buffers, budget_bytes=self.decoded_bytes_max, copy=_as_bytes
            )
        except DecodeError as error:
            raise WireError(str(error)) from error

    def has_buffered(self) -> bool:
        """True when bytes of a further message have been read from the socket already: poll would not tell of them."""
        return self._end > self._start

    def take_fds(self) -> list[int]:
        """The descriptors that came with the last message; the caller closes them."""
        taken, self.received_fds = self.received_fds, []
        return taken

    def drop_fds(self) -> None:
        """Close the descriptors that came and nobody wanted."""
        self._came = None
        for descriptor in self.take_fds() + self._fds:
            os.close(descriptor)
        self._fds = []

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
        if body_bytes + total > self.max_value_bytes or 0 in lengths:
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
        return _parts(whole, lengths)

    def _need(self, count: int, deadline: float | None, *, first: bool = False) -> None:
        """Have at least count unread bytes in the buffer."""
        if self._end - self._start >= count:
            return
        if self._start + count > len(self._view):
            self._make_room(count)
        while self._end - self._start < count:
            self._fill(deadline, first=first)

    def _make_room(self, count: int) -> None:
        rest = self._view[self._start : self._end]
        bigger = _fresh_memory(max(_READ_BYTES, count + 4096))
        bigger[: len(rest)] = rest
        self._view = bigger
        self._start, self._end = 0, len(rest)

    def _fill(self, deadline: float | None, *, first: bool) -> None:
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._view) > _READ_BYTES:
                self._view = _fresh_memory(_READ_BYTES)
        target = self._view[self._end :]
        if self.spin and first and self._spin_read(target):
            return
        if deadline is not None:
            self._wait(deadline, select.POLLIN)
        self._read(target, _WAIT)

    def _spin_read(self, target: memoryview) -> bool:
        """Try without blocking for a moment; after four misses in a row only every sixteenth time."""
        if self._misses >= 4:
            self._misses += 1
            if self._misses < 20:
                return False
            self._misses = 3
        limit = time.perf_counter() + _SPIN_S
        while time.perf_counter() < limit:
            try:
                self._read(target, _DO_NOT_WAIT)
            except BlockingIOError:
                continue
            self._misses = 0
            return True
        self._misses += 1
        return False

    def _wait(self, deadline: float, event: int) -> None:
        while True:
            rest_s = deadline - time.monotonic()
            if rest_s <= 0:
                raise DeadlinePassed
            if self._watched is not None and self._watched.has_buffered():
                raise self._closed()
            ready = self._pollers[event].poll(min(rest_s, 86400) * 1000 + 1)
            if any(descriptor == self.socket.fileno() for descriptor, _ in ready):
                return  # what was sent before the end comes first
            if ready:
                raise self._closed()

    def _read(self, target: memoryview, flags: int) -> None:
        self._end += self._receive_into(target, flags)
        if self._truncated or len(self._fds) > FDS_MAX:
            self._refuse_fds(f"more than {FDS_MAX} descriptors came with a frame")

    def _refuse_fds(self, why: str) -> NoReturn:
        self._truncated = False
        self.drop_fds()
        raise WireError(why)

    def _receive_into(self, target: memoryview, flags: int) -> int:
        try:
            count, ancillary, message_flags, _ = self.socket.recvmsg_into([target], _ANCILLARY_BYTES, flags)
        except ConnectionResetError:
            count, ancillary, message_flags = 0, [], 0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % 4])
                self._fds.extend(fds)
        self._truncated = bool(message_flags & _TRUNCATED)
        if count == 0:
            raise self._closed()
        return count

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(mid_frame=self._end > self._start or self._arrival is not None)
