"""Workers that a pool lets go of: killed at once, waited for beside the next command.

Most of the time that the end of a worker takes is the kernel's, taking its namespaces down: nobody's result waits for that.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, wait
from typing import Any

from fxcell.host import registry
from fxcell.host.background import DaemonExecutor
from fxcell.host.sessions import Session
from fxcell.policies.errors import WorkerStopped

_THREADS = 2
_AT_ONCE = 8


class Farewell:
    """Ends workers. Safe from many threads; at most so many are waited for beside, more in the thread that brings them."""

    def __init__(self) -> None:
        self._threads = DaemonExecutor(_THREADS, "fxcell-pool-end")
        self._closed = False
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def end(self, session: Session) -> None:
        """Kill the worker; soon nothing of it is left."""
        session.kill()
        future: Future[Any] | None = None
        with self._lock:
            if not self._closed and len(self._pending) < _AT_ONCE:
                with contextlib.suppress(RuntimeError):  # the system gives no thread
                    future = self._threads.submit(_stop, session)
                    self._pending.add(future)
        if future is None:
            _stop(session)
        else:
            future.add_done_callback(self._ended)

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)

    def close(self) -> None:
        """Wait until nothing is left of those that were brought, and let the threads go."""
        with self._lock:
            pending = list(self._pending)
            if not self._closed:
                self._threads.close()
            self._closed = True
        wait(pending)

    def forget_after_fork(self) -> None:
        """In the child of a fork: they are the parent's."""
        self._lock, self._closed = threading.Lock(), True
        self._pending = set()


def _stop(session: Session) -> None:
    with contextlib.suppress(WorkerStopped):  # it has ended already, and is forgotten
        registry.stop(session.process)
