"""One command, or many calls of one function, to whatever worker is free; a crash counts against its own input alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fxcell.host import registry
from fxcell.host.pool.mapping import Row, Sent
from fxcell.host.pool.quarantine import Quarantine
from fxcell.host.pool.workers import Workers
from fxcell.host.sessions import Session
from fxcell.policies.calls import Call, Definition
from fxcell.policies.crash import Reason, WorkerCrash
from fxcell.policies.errors import EncodeError, MessageTooLarge, Quarantined
from fxcell.sandbox.area import NoArea


class Sender:
    """Safe from many threads.

    wait_s:     seconds that a command waits for a free worker at most.
    deadline_s: the pool's own deadline for commands that name none.
    """

    def __init__(self, workers: Workers, quarantine: Quarantine, wait_s: float, deadline_s: float) -> None:
        self._workers, self._quarantine, self._wait_s, self._deadline_s = workers, quarantine, wait_s, deadline_s

    def one(self, command: Any, seconds: float | None) -> Any:
        """The command's result. Raises: as Pool.run."""
        self._quarantine.check(command)
        with self._workers.one(time.monotonic() + self._wait_s) as session:
            return self._command(session, command, seconds)

    def many(self, definition: Definition, rows: Sequence[Row], seconds: float | None) -> Sent:
        """Calls with these arguments: one or more of the first of them, as many as a worker makes at once. Raises: as one."""
        command = Call(definition, rows[0], {})
        self._quarantine.check(command)
        with self._workers.one(time.monotonic() + self._wait_s) as session:
            started = time.monotonic()
            if len(rows) > 1 and session.takes_batches:
                rows = rows[: min(self._workers.commands_left(session), self._first_refused(definition, rows))]
                try:
                    results, errors = registry.batch(session.process, definition, rows, seconds)
                except (EncodeError, MessageTooLarge, NoArea):
                    pass  # together they are too much, or one of them is at fault: the next one tells
                else:
                    for crash in errors:
                        if isinstance(crash, WorkerCrash):
                            self._count(Call(definition, rows[len(results)], {}), crash, seconds)
                    return Sent(results, errors[0] if errors else None, time.monotonic() - started)
            return Sent([self._command(session, command, seconds)], None, time.monotonic() - started)

    def _command(self, session: Session, command: Any, seconds: float | None) -> Any:
        try:
            return registry.command(session.process, command, seconds)
        except WorkerCrash as crash:
            # Never tried again: what it did before, its effects above all, would be done twice.
            self._count(command, crash, seconds)
            raise

    def _count(self, command: Any, crash: WorkerCrash, seconds: float | None) -> None:
        # Who gives less time than the pool would must not have the input refused to those who give it enough.
        if crash.reason is not Reason.DEADLINE or seconds is None or seconds >= self._deadline_s:
            self._quarantine.add(command, crash)

    def _first_refused(self, definition: Definition, rows: Sequence[Row]) -> int:
        if self._quarantine.concerns(definition.digest):
            for place, row in enumerate(rows[1:], 1):
                try:
                    self._quarantine.check(Call(definition, row, {}))
                except Quarantined:
                    return place
        return len(rows)
