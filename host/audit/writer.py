"""One thread that writes the records of all workers, in batches.

    put(record)            queued; waits for room, at most PATIENCE_S, then the record is counted as lost
    put(record, ask=True)  queued and waited for until write(2) has taken it: None, or why it could not be kept
    with when_full "drop"  neither waits: where there is no room, the record is counted as lost at once

After a failed write the records that nobody waits for stay in memory (when_full "deny") or are counted (when_full
"drop"), and every later batch tries again. A `lost` line says how many are missing as soon as a line can be written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from fxcell.host.audit.chain import AuditError
from fxcell.host.audit.file import AuditFile

PATIENCE_S = 5.0
QUEUE_RECORDS = 4096
_BATCH_RECORDS = 512
_SYNC_S = 1.0
_log = logging.getLogger("fxcell.audit")


class _Ticket:
    __slots__ = ("answered", "problem", "record", "told")

    def __init__(self, record: dict[str, Any], *, ask: bool) -> None:
        self.record = record
        self.problem: str | None = None
        self.told = False
        self.answered = threading.Lock() if ask else None
        if self.answered is not None:
            self.answered.acquire()

    def tell(self, problem: str | None) -> None:
        """Answer who waits for it, once."""
        if self.answered is not None and not self.told:
            self.told, self.problem = True, problem
            self.answered.release()


class Writer:
    """Safe from many threads. Before: the file is open. After close: the file is closed."""

    def __init__(self, file: AuditFile, *, drop: bool, queue_records: int = QUEUE_RECORDS) -> None:
        self._file, self._drop, self._bound = file, drop, queue_records
        self._queue: deque[_Ticket] = deque()
        self._waiting: list[_Ticket] = []
        self._lost, self._problem = 0, ""
        self._unsynced = False
        self._closing = False
        lock = threading.Lock()
        self._more, self._room = threading.Condition(lock), threading.Condition(lock)
        self._thread = threading.Thread(target=self._work, name="fxcell-audit", daemon=True)
        self._thread.start()

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line that was written."""
        return self._file.seq, self._file.head.decode()

    def put(self, record: dict[str, Any], *, ask: bool = False, patience_s: float = PATIENCE_S) -> str | None:
        """Have a record written; with ask, wait for it. Answers None, or why it was not kept: that never with "drop"."""
        ask = ask and not self._drop
        ticket = _Ticket(record, ask=ask)
        deadline = time.monotonic() + patience_s
        with self._more:
            while len(self._queue) >= self._bound and not self._closing:
                if self._drop:
                    self._lost += 1
                    return None
                if not self._room.wait(max(0.0, deadline - time.monotonic())) and len(self._queue) >= self._bound:
                    self._lost += 0 if ask else 1
                    return f"{self._bound} records wait for the disk already"
            if self._closing:
                return None if self._drop else "the audit log is closed"
            self._queue.append(ticket)
            if len(self._queue) == 1 or ask:
                self._more.notify()
        if ticket.answered is not None and not ticket.answered.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return f"the disk did not take it within {patience_s:g} s"
        return ticket.problem

    def close(self) -> None:
        """Write what is queued, sync, close. Raises AuditError when records are lost."""
        with self._more:
            if self._closing:
                return
            self._closing = True
            self._more.notify()
            self._room.notify_all()
        self._thread.join()
        try:
            self._file.sync()
        except OSError as error:
            raise AuditError(f"the end of {self._file.path!r} may not be on the disk: {error.strerror}") from error
        finally:
            self._file.close()
        missing = self._lost + len(self._waiting)
        if missing:
            raise AuditError(f"{missing} records of the audit log {self._file.path!r} are lost: {self._problem}")

    def _work(self) -> None:
        synced = time.monotonic()
        while True:
            with self._more:
                if not self._queue and not self._closing:
                    self._more.wait(_SYNC_S if self._unsynced or self._waiting or self._lost else None)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH_RECORDS))]
                last = self._closing and not self._queue
                self._room.notify_all()
            try:
                self._write(batch)
                if self._unsynced and time.monotonic() - synced >= _SYNC_S:
                    self._file.sync()
                    self._unsynced, synced = False, time.monotonic()
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for a thread that is gone
                self._problem = f"{type(error).__name__}: {error}"
                _log.exception("the audit log %s could not be written", self._file.path)
                with self._more:
                    self._lost += sum(ticket.answered is None for ticket in batch)
            finally:
                for ticket in batch:
                    ticket.tell(self._problem or "the audit log could not be written")
            if last:
                return

    def _write(self, batch: list[_Ticket]) -> None:
        if not batch and not self._waiting and not self._lost:
            return
        tickets = [*self._waiting, *batch]
        lost = self._lost
        records = [ticket.record for ticket in tickets]
        if lost:
            records.insert(0, {"event": "lost", "count": lost, "why": self._problem})
        kept, error = self._file.append(records)
        self._unsynced = self._unsynced or kept > 0
        if lost and kept:
            with self._more:
                self._lost -= lost
            kept -= 1
        for ticket in tickets[:kept]:
            ticket.tell(None)
        self._waiting = []
        if error is not None:
            self._keep_for_later(tickets[kept:], f"{error.strerror or error}")

    def _keep_for_later(self, tickets: list[_Ticket], problem: str) -> None:
        if problem != self._problem:
            _log.error("the audit log %s could not be written: %s", self._file.path, problem)
        self._problem = problem
        unasked = [ticket for ticket in tickets if ticket.answered is None]
        self._waiting = [] if self._drop else unasked[: self._bound]
        with self._more:
            self._lost += len(unasked) - len(self._waiting)
        for ticket in tickets:
            ticket.tell(problem)
