"""Threads that end with the process instead of holding it up.

The interpreter waits for the threads of a ThreadPoolExecutor before it runs exit handlers: a host that exits while a command
is running would wait for that command, and only then stop the workers. Daemon threads are left behind instead; the exit
handler stops the workers they wait for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from fxcell.host.log_text import traceback_text

_log = logging.getLogger("fxcell.background")
_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]
_executors: weakref.WeakSet[DaemonExecutor] = weakref.WeakSet()


class DaemonExecutor(Executor):
    """At most max_threads daemon threads, started on demand. `submit` as in concurrent.futures; close() instead of shutdown.

    submit raises RuntimeError where no thread can be started and there is none: the function is not called then.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._mine = threading.local()
        self._reset()
        _executors.add(self)

    def _reset(self) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._growing = threading.Lock()
        self._count = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a thread call the function; the Future has its result or exception."""
        future: Future[Any] = Future()
        self._tasks.put((future, function, args, kwargs))
        if self._count == 0 or not self._idle.acquire(blocking=False):
            with self._growing:
                if self._count < self._max_threads:
                    self._grow(future)
        return future

    def _grow(self, future: Future[Any]) -> None:
        """One more thread. Where the system gives none, those there are do the work; without any the future is taken back."""
        self._count += 1
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True)
        try:
            thread.start()
        except BaseException as error:
            if thread.ident is None:  # else it was an interrupt while it began, and it runs
                self._count -= 1
            if not isinstance(error, RuntimeError) or (self._count == 0 and future.cancel()):
                raise

    @property
    def runs_this_thread(self) -> bool:
        """True in a function that was submitted, and in its done-callbacks."""
        return hasattr(self._mine, "yes")

    def close(self) -> None:
        """Let the threads end when they have done what was submitted before. Nothing may be submitted afterwards."""
        with self._growing:
            for _ in range(self._count):
                self._tasks.put(None)

    def _work(self) -> None:
        tasks, idle = self._tasks, self._idle
        self._mine.yes = True
        while (task := tasks.get()) is not None:
            future, function, args, kwargs = task
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
                    with _callbacks_end_nothing():
                        future.set_exception(error)
                else:
                    with _callbacks_end_nothing():
                        future.set_result(result)
                    del result
            del task, future, function, args, kwargs
            idle.release()


@contextlib.contextmanager
def _callbacks_end_nothing() -> Iterator[None]:
    """What a done-callback raises goes to the log, SystemExit too, which a Future lets through: it would end the thread."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - it belongs to nobody: the future has its outcome already
        _log.error("a done-callback raised\n%s", traceback_text(error))


def _forget_after_fork() -> None:
    for executor in list(_executors):
        executor._reset()


os.register_at_fork(after_in_child=_forget_after_fork)
