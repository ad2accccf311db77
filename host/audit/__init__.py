"""The audit log: one JSON line per decision, in a chain that shows what was removed, changed or put in.

    from fxcell.host import audit
    with audit.to_file("/var/log/app/effects.jsonl"):
        ...                                       # every worker of this process
    audit.verify(["/var/log/app/effects.jsonl"])  # or: fxcell audit verify FILE

    broker (thread of the command) --record--> queue (4096) --batch--> one writer thread --write(2)--> PATH

Before an effect is performed its `granted` record has been taken by write(2): the thread waits for it. Room reserved in
a queue would be cheaper, but a queue is lost with the host, and the disk can be full when its turn comes. So an effect
that was performed has a line even if the host is killed in the next moment, and one whose line cannot be written is
denied. What comes after the act (`done`, `failed`) and what is not an act (`denied`, worker events) is queued.

Disk full, too large, or an I/O error: with when_full="deny" further effects are denied and the records that nobody
waited for stay in memory, up to the queue's length, until a later write succeeds. With "drop" every record is only queued,
nothing waits and nothing is denied, also where the disk hangs and the queue is full; what could not be kept is counted, and
the next line that can be written says so (`lost`).

fsync: at most once a second, on rotation and on close. A killed host loses queued `done` lines, and the line that was
being written may be torn; a machine that loses power can lose the last second. verify names a torn last line; the next
opening leaves it where it is and vouches for it in its first line.
"""

from __future__ import annotations

import atexit
import os
from types import TracebackType
from typing import Literal, Self

from fxcell.host import observing
from fxcell.host.audit.chain import AuditError, read_key
from fxcell.host.audit.events import AuditObserver
from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.redaction import hide
from fxcell.host.audit.verify import Report, verify
from fxcell.host.audit.writer import Writer

__all__ = ["AuditError", "AuditLog", "Report", "hide", "to_file", "verify"]

MiB = 2**20


class AuditLog:
    """An installed audit log. close() removes it and raises AuditError when records are lost; also a context manager."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._observer = AuditObserver(writer)
        self._owner = os.getpid()
        observing.add(self._observer)
        atexit.register(self._close_at_exit)

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line: keep them elsewhere, and a log that was cut at its end is found."""
        return self._writer.head

    def close(self) -> None:
        """Write and sync what is queued, and audit nothing more. Raises AuditError when records are lost."""
        if os.getpid() != self._owner:  # in a forked child: file and thread are the parent's
            return
        observing.remove(self._observer)
        atexit.unregister(self._close_at_exit)
        self._writer.close()

    def _close_at_exit(self) -> None:
        if os.getpid() == self._owner:
            from fxcell.host import shutdown

            shutdown()  # the ends of the workers belong into the log
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def to_file(
    path: str | os.PathLike[str],
    *,
    rotate_bytes: int = 64 * MiB,
    keep: int = 16,
    when_full: Literal["deny", "drop"] = "deny",
    key_file: str | None = None,
) -> AuditLog:
    """Audit everything that the workers of this process do into a file, continuing the chain that is in it.

    path:         made with mode 0600; a link, a device or a file that another host writes is refused.
    rotate_bytes: a new file begins where a batch finds the file at or above it; from 4096.
    keep:         rotated files that stay, PATH.1 and so on; the oldest is deleted beyond it; from 1.
    when_full:    "deny": no effect without a record. "drop": effects go on, and the next line says how many are missing.
    key_file:     16 to 4096 secret bytes: the chain is then HMAC-SHA256, which nobody without them can compute.
    Raises: AuditError - the file cannot be opened, is in use, or is no audit log. ValueError - an argument.
    """
    if rotate_bytes < 4096 or keep < 1 or when_full not in ("deny", "drop"):
        raise ValueError(
            f"rotate_bytes={rotate_bytes} (from 4096), keep={keep} (from 1) or when_full={when_full!r} (deny, drop)"
        )
    key = read_key(key_file) if key_file is not None else None
    return AuditLog(Writer(AuditFile(os.fspath(path), rotate_bytes, keep, key), drop=when_full == "drop"))
