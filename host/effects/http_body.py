"""Bodies of answers, read and decompressed without ever holding more than the cap."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from fxcell.host.effects.context import Pace
from fxcell.policies.errors import EffectFailed

_GZIP_BITS = 16 + zlib.MAX_WBITS
_MAX_CODINGS = 2


def read(pieces: Iterable[bytes], content_encoding: str, max_bytes: int, pace: Pace) -> bytes:
    """Join the pieces, with gzip and deflate undone; an encoding we do not know is left as it is.

    max_bytes: of the body as sent, and of the body as answered.
    Raises:    EffectFailed - too_large; connection, for damaged compressed data; timeout or cancelled.
    """
    words = [word.strip() for word in content_encoding.lower().split(",")]
    codings = [word for word in words if word not in ("", "identity")]
    known = len(codings) <= _MAX_CODINGS and all(coding in ("gzip", "x-gzip", "deflate") for coding in codings)
    inflaters = [_Inflater(coding, max_bytes, pace) for coding in reversed(codings)] if known else []
    body = bytearray()
    received = 0
    for piece in pieces:
        pace.check()
        received += len(piece)
        data = piece
        for inflater in inflaters:
            data = inflater.feed(data)
        body += data
        if max(received, len(body)) > max_bytes:
            raise _too_large(pace, max_bytes)
    for inflater in inflaters:
        inflater.end()
    return bytes(body)


class _Inflater:
    """Undoes one coding, at most max_bytes of output over its life."""

    def __init__(self, coding: str, max_bytes: int, pace: Pace) -> None:
        self._gzip = coding != "deflate"
        self._max_bytes = max_bytes
        self._room = max_bytes
        self._pace = pace
        self._engine = zlib.decompressobj(_GZIP_BITS) if self._gzip else None
        self._head = b""
        self._started = False

    def feed(self, data: bytes) -> bytes:
        if data:
            self._started = True
        if self._engine is None:
            # "deflate" should be zlib data (RFC 9110, 8.4.1.2), but some servers send it bare: two bytes tell.
            self._head += data
            if len(self._head) < 2:
                return b""
            wrapped = self._head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._head[:2], "big") % 31 == 0
            self._engine = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
            data, self._head = self._head, b""
        out = bytearray()
        while data:
            if self._engine.eof:
                if not self._gzip:
                    break  # bytes after the end are ignored, as browsers do
                self._engine = zlib.decompressobj(_GZIP_BITS)  # gzip: members follow each other
            self._pace.check()
            try:
                part = self._engine.decompress(data, self._room + 1)
            except zlib.error as error:
                raise self._damaged() from error
            out += part
            self._room -= len(part)
            if self._room < 0:
                raise _too_large(self._pace, self._max_bytes)
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
        return bytes(out)

    def end(self) -> None:
        """Refuse data that stops in the middle; no data at all is an empty body."""
        if self._started and (self._engine is None or not self._engine.eof):
            raise self._damaged()

    def _damaged(self) -> EffectFailed:
        return EffectFailed(self._pace.effect, "connection", "the compressed body is damaged or incomplete")


def _too_large(pace: Pace, max_bytes: int) -> EffectFailed:
    return EffectFailed(pace.effect, "too_large", f"the body of the answer is over {max_bytes} bytes")
