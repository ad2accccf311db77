"""A network backend for httpcore that connects to addresses decided before, and never waits past a deadline.

Sockets do not block; every wait is a poll(2) of at most _LOOK_S, after which deadline and cancellation are looked at.
So a server that sends one byte a second, or never reads, costs no more than the time the effect has.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import httpcore

from fxcell.host.effects.context import Pace
from fxcell.policies.errors import EffectFailed

MAX_OVERHEAD_BYTES = 256 * 1024
"""More than a header at its cap (http_headers) and one read ahead."""

_LOOK_S = 0.1
_Result = TypeVar("_Result")


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to the first of `addresses` that answers, whatever host it is asked for.

    received_bytes: everything received so far, after TLS: heads, interim answers, framing and body.
    """

    def __init__(self, addresses: list[str], pace: Pace) -> None:
        self.addresses = addresses
        self.pace = pace
        self.received_bytes = 0
        self._max_received_bytes: float = MAX_OVERHEAD_BYTES

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces of the body, each of which lets the server send a little more than itself.

        A body in chunks of one byte, or interim answers without end, cost the host far more time than their size
        tells. So what is not body may be MAX_OVERHEAD_BYTES and a quarter of the body, which is enough for chunks of
        20 bytes.
        """
        for piece in pieces:
            self._max_received_bytes += len(piece) + len(piece) / 4
            yield piece

    def note_received(self, count: int) -> None:
        """Count bytes. Raises EffectFailed(too_large)."""
        self.received_bytes += count
        if self.received_bytes > self._max_received_bytes:
            text = "the server sends far more than the content of an answer needs"
            raise EffectFailed(self.pace.effect, "too_large", text)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the pace decides
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Connect; each address gets its share of the time that is left."""
        failure: OSError | None = None
        for index, address in enumerate(self.addresses):
            share = self.pace.remaining() / (len(self.addresses) - index)
            try:
                sock = _connect(address, port, self.pace, share)
            except OSError as error:
                failure = error
            else:
                return _Stream(sock, self)
        reason = os.strerror(failure.errno) if failure and failure.errno else "no address answered"
        raise httpcore.ConnectError(f"{host} port {port}: {reason}") from failure


def _connect(address: str, port: int, pace: Pace, seconds: float) -> socket.socket:
    """Raises OSError after that many seconds; EffectFailed when the time of the whole effect is over."""
    give_up = time.monotonic() + seconds
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        number = sock.connect_ex((address, port))
        while number == errno.EINPROGRESS:
            if time.monotonic() >= give_up:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if _ready(sock, select.POLLOUT, pace):
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _ready(sock: socket.socket, events: int, pace: Pace) -> bool:
    """Wait at most _LOOK_S. Raises EffectFailed at the end of the time or when nobody waits any more."""
    pace.check()
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(math.ceil(min(_LOOK_S, pace.remaining()) * 1000)))


class _Stream(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket, backend: PinnedBackend) -> None:
        self._sock = sock
        self._backend = backend
        self._pace = backend.pace

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the pace decides
        try:
            data = self._patiently(lambda: self._sock.recv(max_bytes), select.POLLIN)
        except OSError as error:
            raise httpcore.ReadError(_reason(error)) from error
        self._backend.note_received(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        left = memoryview(buffer)
        while left:
            part = left  # a TLS write that must wait is repeated with the same bytes, as OpenSSL demands
            try:
                sent = self._patiently(lambda part=part: self._sock.send(part), select.POLLOUT)  # type: ignore[misc]
            except OSError as error:
                raise httpcore.WriteError(_reason(error)) from error
            left = left[sent:]

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Raises EffectFailed(tls) for a certificate that is not trusted or not the host's."""
        try:
            secure = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname, do_handshake_on_connect=False)
            self._sock = secure
            self._patiently(secure.do_handshake, select.POLLIN)
        except ssl.SSLError as error:
            self.close()
            detail = getattr(error, "verify_message", "") or error.reason or "handshake failed"
            text = f"no trusted connection to {server_hostname}: {detail}"
            raise EffectFailed(self._pace.effect, "tls", text) from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(_reason(error)) from error
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002 - httpcore asks what HTTP/2 and reuse would need
        return None

    def _patiently(self, operation: Callable[[], _Result], events: int) -> _Result:
        while True:
            self._pace.check()
            try:
                return operation()
            except ssl.SSLWantReadError:
                _ready(self._sock, select.POLLIN, self._pace)
            except ssl.SSLWantWriteError:
                _ready(self._sock, select.POLLOUT, self._pace)
            except BlockingIOError:
                _ready(self._sock, events, self._pace)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError) else "the connection broke"
