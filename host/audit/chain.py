r"""The chain of an audit log: every line ends in a hash over the hash before it and its own bytes.

    seal(b"0" * 64, b'{"seq":1}', None) -> b'{"seq":1,"hash":"…64 hex digits…"}\n'

Without a key anyone who can write the file can compute the chain anew; it then proves nothing but that the file was not
changed by accident or by someone who did not bother, unless the last hash is kept elsewhere (`fxcell audit head`). With
a key (HMAC-SHA256) only who has the key can.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat

from fxcell.policies.errors import FxcellError

GENESIS = b"0" * 64
KEY_BYTES_MIN, KEY_BYTES_MAX = 16, 4096
_MARK = b',"hash":"'
_TAIL = len(_MARK) + 64 + len(b'"}')


class AuditError(FxcellError):
    """The audit log cannot be opened, read, kept or continued; the text says what was attempted and what to do."""


def digest(previous: bytes, body: bytes, key: bytes | None) -> bytes:
    """The hash of a line, as 64 hex digits. body: the line without its hash, a JSON object."""
    if key is None:
        return hashlib.sha256(previous + body).hexdigest().encode()
    return hmac.digest(key, previous + body, "sha256").hex().encode()


def seal(previous: bytes, body: bytes, key: bytes | None) -> tuple[bytes, bytes]:
    """(line with its newline, hash) of a JSON object that has at least one key."""
    own = digest(previous, body, key)
    return body[:-1] + _MARK + own + b'"}\n', own


def split(line: bytes) -> tuple[bytes, bytes] | None:
    """(body, hash) of a line without its newline, or None where it has not the form that seal gives."""
    if len(line) <= _TAIL or not line.endswith(b'"}') or line[-_TAIL : -_TAIL + len(_MARK)] != _MARK:
        return None
    return line[:-_TAIL] + b"}", line[-66:-2]


def read_key(path: str) -> bytes:
    """The key in a file: all its bytes. Raises AuditError unless it is a regular file of 16 to 4096 bytes, private."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            key = file.read(KEY_BYTES_MAX + 1) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise AuditError(f"the audit key {path!r} cannot be read: {error.strerror}") from error
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise AuditError(f"the audit key {path!r} must be a regular file of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")
    if found.st_mode & 0o077:
        raise AuditError(f"the audit key {path!r} can be read by others: chmod 600 it")
    return key
