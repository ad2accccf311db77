"""`await run.aio(value)` that is cancelled: the command ends, and with it the worker that was running it.

    asyncio cancels the future -> Ticket.cancel -> a command that waits for its turn never begins
                                                -> a running one ends as from a deadline: its worker is killed

Python code in a worker cannot be interrupted in any other way that it could not refuse.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator

_thread = threading.local()
_NOTHING = contextlib.nullcontext()


class Ticket:
    """Goes with what one thread does for one `run.aio`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = self._over = False
        self._ends: list[Callable[[], None]] = []  # a command of an effect handler runs within another one

    def cancel(self) -> None:
        """End what is being done, unless it is over; in the tier trusted this can take a moment."""
        with self._lock:
            self._cancelled = True
            for end in self._ends if not self._over else ():
                end()

    @contextlib.contextmanager
    def in_this_thread(self) -> Iterator[None]:
        """Commands that this thread sends belong to this ticket."""
        _thread.ticket = self
        try:
            yield
        finally:
            _thread.ticket = None
            with self._lock:
                self._over = True

    @contextlib.contextmanager
    def command(self, end: Callable[[], None]) -> Iterator[None]:
        """A command has its turn; `end` ends it. Raises CancelledError when it shall not begin any more."""
        with self._lock:
            if self._cancelled:
                raise concurrent.futures.CancelledError
            self._ends.append(end)
        try:
            yield
        finally:
            with self._lock:
                self._ends.pop()


def command(end: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """The context in which a command of this thread runs, cancellable or not."""
    ticket: Ticket | None = getattr(_thread, "ticket", None)
    return _NOTHING if ticket is None else ticket.command(end)
