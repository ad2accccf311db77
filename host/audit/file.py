"""One audit log on disk: opened, locked, continued, appended to, rotated.

    PATH      the file that is written, always there, always locked (flock) by the host that writes it
    PATH.1 …  closed files, the highest number the newest

A file begins with an `opened` line that names the hash before it; so does each reopening. Bytes that a killed host left
without a newline stay where they are: the next `opened` line says how many they were and their SHA-256.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import stat
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from fxcell.host.audit.chain import GENESIS, AuditError, digest, seal, split

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LINE_BYTES_MAX = 2**20
_encode = msgspec.json.Encoder(enc_hook=lambda value: f"<{type(value).__name__}>").encode
"""With a word for what JSON has no form for: a record that cannot be written would take its whole batch along."""


class AuditFile:
    """The chain's end and the descriptor it is written to. One thread at a time.

    seq, head: number and hash of the last whole line.
    """

    def __init__(self, path: str, rotate_bytes: int, keep: int, key: bytes | None) -> None:
        """Open, lock and continue. Raises AuditError: not a regular file, in use, not an audit log, or not writable."""
        self.path = os.path.abspath(path)
        self.rotate_bytes, self.keep, self.key = rotate_bytes, keep, key
        self.seq, self.head, self.size = 0, GENESIS, 0
        self._torn: bytes | None = None
        self._unended = False
        self._spoilt = ""
        self.fd = self._open()
        try:
            self._drop_half_rotation()
            self._continue()
            self._write_all([{"event": "opened", **self._opening()}])
        except OSError as error:
            os.close(self.fd)
            raise AuditError(f"the audit log {self.path!r} cannot be continued: {error.strerror}") from error
        except BaseException:
            os.close(self.fd)
            raise

    def append(self, records: Sequence[dict[str, Any]]) -> tuple[int, OSError | None]:
        """Write records as whole lines; answer how many were kept and, if not all, what the system said.

        After: no part of a line that was not kept is in the file.
        """
        try:
            if self.size >= self.rotate_bytes:
                self._rotate()
            self._write_all(records, partly=True)
        except _Partly as partly:
            return partly.kept, partly.error
        except OSError as error:
            return 0, error
        return len(records), None

    def sync(self) -> None:
        """Have the kernel write what was appended to the disk. Raises OSError."""
        os.fdatasync(self.fd)

    def close(self) -> None:
        """Close; the lock goes with it."""
        os.close(self.fd)

    def _open(self) -> int:
        for _ in range(100):
            try:
                fd = os.open(self.path, _FLAGS, 0o600)
            except OSError as error:
                raise AuditError(f"the audit log {self.path!r} cannot be opened: {error.strerror}") from error
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise AuditError(f"the audit log {self.path!r} is not a regular file")
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise AuditError(
                        f"the audit log {self.path!r} is written by another host; give each host a file of its own"
                    ) from error
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                        return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was rotated away between open and flock
        raise AuditError(f"the audit log {self.path!r} is replaced faster than it can be opened")

    def _drop_half_rotation(self) -> None:
        """A host killed between the two steps of _rotate leaves the living file under a second name."""
        if os.fstat(self.fd).st_nlink > 1:
            for number in self._numbers():
                name = f"{self.path}.{number}"
                if os.path.samestat(os.fstat(self.fd), os.lstat(name)):
                    os.unlink(name)

    def _continue(self) -> None:
        self.size = os.fstat(self.fd).st_size
        start = max(0, self.size - 2 * _LINE_BYTES_MAX)
        tail = os.pread(self.fd, self.size - start, start)
        whole, newline, rest = tail.rpartition(b"\n")
        self._torn = rest or None
        if not newline:
            if self.size > _LINE_BYTES_MAX:
                raise AuditError(f"{self.path!r} is not an audit log: it has no lines")
            return
        found = split(whole.rpartition(b"\n")[2])
        try:
            self.seq = msgspec.json.decode(found[0])["seq"] if found else -1
        except (msgspec.DecodeError, KeyError, TypeError):
            self.seq = -1
        if found is None or type(self.seq) is not int or self.seq < 1:
            raise AuditError(
                f"{self.path!r} does not end as an audit log does; run `fxcell audit verify` on it, or use another file"
            )
        self.head = found[1]
        self._adopt_whole_last_line()

    def _adopt_whole_last_line(self) -> None:
        """A last line that lacks its newline alone is the record that it is: only the newline is written after it."""
        found = split(self._torn) if self._torn is not None else None
        if found is None or not hmac.compare_digest(digest(self.head, found[0], self.key), found[1]):
            return
        self.seq, self.head = self.seq + 1, found[1]
        self._torn, self._unended = None, True

    def _opening(self) -> dict[str, Any]:
        told: dict[str, Any] = {"version": 1, "keyed": self.key is not None, "prev": self.head.decode()}
        if self._torn is not None:
            told["torn_bytes"], told["torn_sha256"] = len(self._torn), hashlib.sha256(self._torn).hexdigest()
        return told

    def _write_all(self, records: Sequence[dict[str, Any]], *, partly: bool = False) -> None:
        if self._spoilt:
            raise OSError(5, self._spoilt)
        lines, states, head, seq = [], [], self.head, self.seq
        end = self.size
        if self._torn is not None or self._unended:
            lines.append(b"\n")
            end += 1
        for record in records:
            seq += 1
            body = _encode({"seq": seq, "time": _utc(), "host": os.getpid(), **record})
            line, head = seal(head, body, self.key)
            lines.append(line)
            end += len(line)
            states.append((end, head, seq))
        data = memoryview(b"".join(lines))
        written, failure = 0, None
        while written < len(data):
            try:
                written += os.write(self.fd, data[written:])
            except OSError as error:
                failure = error
                break
        kept = 0
        for state in states:
            if state[0] > self.size + written:
                break
            kept += 1
        old_size = self.size
        if kept:
            self._torn, self._unended = None, False
            self.size, self.head, self.seq = states[kept - 1]
        if failure is None:
            return
        if old_size + written > self.size:
            try:
                os.ftruncate(self.fd, self.size)
            except OSError as error:
                self._spoilt = f"a line that was written in part cannot be removed ({error.strerror})"
        if partly:
            raise _Partly(kept, failure)
        raise failure

    def _rotate(self) -> None:
        """Begin a new file that names this one's last hash. Raises OSError; the old file is then still the one in use."""
        numbers = self._numbers()
        old_fd, old_size, next_path = self.fd, self.size, f"{self.path}.next"
        before = self.head, self.seq
        with contextlib.suppress(FileNotFoundError):
            os.unlink(next_path)  # of a host that was killed in here; the lock says that it is nobody else's
        fd = os.open(next_path, _FLAGS | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.sync()
            self.fd, self.size = fd, 0
            self._write_all([{"event": "opened", **self._opening(), "after": os.path.basename(self.path)}])
            self.sync()
            # Two steps, so that PATH is never missing: a second host would make and lock a new one.
            closed = f"{self.path}.{max(numbers, default=0) + 1}"
            os.link(self.path, closed)
            os.rename(next_path, self.path)
        except OSError:
            self.fd, self.size = old_fd, old_size
            self.head, self.seq = before
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(next_path)
            self._drop_half_rotation()
            raise
        os.close(old_fd)
        for number in sorted([*numbers, max(numbers, default=0) + 1])[: -self.keep or None]:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}.{number}")

    def _numbers(self) -> list[int]:
        pattern = re.compile(re.escape(os.path.basename(self.path)) + r"\.([1-9][0-9]{0,8})")
        names = os.listdir(os.path.dirname(self.path))
        return [int(found[1]) for name in names if (found := pattern.fullmatch(name))]


class _Partly(Exception):
    def __init__(self, kept: int, error: OSError) -> None:
        super().__init__(kept)
        self.kept, self.error = kept, error


def _utc() -> str:
    now = time.time_ns() // 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000)) + f".{now % 1_000_000:06}Z"
