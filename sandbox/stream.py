"""The bytes of a channel: sending until a deadline, a read buffer, and the descriptors that come with what is read.

What waits does not spin for long, notices the end of the other side even where its socket stays open, and can be repeated
after a deadline: nothing that came is lost.
"""

from __future__ import annotations

import array
import mmap
import os
import select
import socket
import threading
import time
from typing import Any, NoReturn

FDS_MAX = 4
"""With one message."""
_ANCILLARY_BYTES = socket.CMSG_SPACE(FDS_MAX * 4)
_READ_BYTES = 128 * 1024
_SPIN_S = 150e-6
# Plain integers: the constants of socket are enums, whose operators are calls of Python code.
_WAIT, _DO_NOT_WAIT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_NOTHING_MORE: tuple[int, list[Any], int, None] = (0, [], 0, None)
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


def _fresh_memory(size: int) -> memoryview:
    # A bytearray is all there from the start; of this only those pages are that something was written to.
    try:
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:
        raise MemoryError(f"no memory for a frame of {size} bytes") from error


class Stream:
    """One end of a stream socket. Any thread may send; one at a time receives.

    spin: first try without blocking for at most 150 µs after activity; only sensible with idle cores.
    acts: messages that were sent, and writes to streams that lead to one.
    """

    def __init__(self, sock: socket.socket, *, spin: bool) -> None:
        self.socket = sock
        self.spin = spin
        self.acts = 0
        self.received_fds: list[int] = []
        self._sending = threading.Lock()
        self._pollers = {event: select.poll() for event in (select.POLLIN, select.POLLOUT)}
        for event, poller in self._pollers.items():
            poller.register(sock.fileno(), event)
        self._watched: Stream | None = None
        self._misses = 0
        self._view = _fresh_memory(_READ_BYTES)
        self._start = 0
        self._end = 0
        self._fds: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def end_with(self, other: Stream) -> None:
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

    def has_buffered(self) -> bool:
        """True when bytes of a further message have been read from the socket already: poll would not tell of them."""
        return self._end > self._start

    def take_fds(self) -> list[int]:
        """The descriptors that came with the last message; the caller closes them."""
        taken, self.received_fds = self.received_fds, []
        return taken

    def drop_fds(self) -> None:
        """Close the descriptors that came and nobody wanted."""
        for descriptor in self.take_fds() + self._fds:
            os.close(descriptor)
        self._fds = []

    # --- sending

    def _send_some(self, data: bytes | memoryview, ancillary: list[Any], deadline: float | None) -> int:
        flags = 0 if deadline is None else _SEND_NOW
        while True:
            try:
                return self.socket.sendmsg([data], ancillary, flags)  # never send(), which is a call that workers do not have
            except BlockingIOError:
                assert deadline is not None  # the socket blocks
                self._wait(deadline, select.POLLOUT)

    # --- receiving

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
        self._end += self._receive_into(target, deadline)

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
                came = self.socket.recvmsg_into([target], _ANCILLARY_BYTES, _DO_NOT_WAIT)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                came = _NOTHING_MORE
            self._end += self._took(came)
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

    def _refuse_fds(self, why: str) -> NoReturn:
        self.drop_fds()
        raise WireError(why)

    def _receive_into(self, target: memoryview, deadline: float | None) -> int:
        flags = _WAIT if deadline is None else _DO_NOT_WAIT
        while True:
            if deadline is not None:
                self._wait(deadline, select.POLLIN)
            try:
                return self._took(self.socket.recvmsg_into([target], _ANCILLARY_BYTES, flags))
            except BlockingIOError:
                # poll(2) told of out-of-band data, which is in no stream of bytes: a receive that waits would do so for ever.
                continue
            except ConnectionResetError:
                return self._took(_NOTHING_MORE)

    def _took(self, came: tuple[int, list[Any], int, Any]) -> int:
        """Keep the descriptors that came with what was read; answers how many bytes that was."""
        count, ancillary, flags, _ = came
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % 4])
                self._fds.extend(fds)
        if flags & _TRUNCATED and len(self._fds) <= FDS_MAX:
            self._check_room()
        if flags & _TRUNCATED or len(self._fds) > FDS_MAX:
            self._refuse_fds(f"more than {FDS_MAX} descriptors came with a frame")
        if count == 0:
            raise self._closed()
        return count

    def _check_room(self) -> None:
        """Raise OSError(EMFILE, ENFILE) where the kernel dropped descriptors because this process may open no more."""
        try:
            os.close(os.dup(self.socket.fileno()))
        except OSError:
            self.drop_fds()
            raise

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(mid_frame=self._end > self._start)
