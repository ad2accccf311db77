"""A pool as a concurrent.futures.Executor: for `loop.run_in_executor` and libraries that take an executor."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any
from weakref import WeakKeyDictionary

from fxcell.host.pool.pool import Pool
from fxcell.policies.calls import ZefFunction, as_call


class PoolExecutor(Executor):
    """Functions and other callables, sent by value with what they capture, to the workers of a pool of its own.

    What a function raises comes back as PluginError, and a crash as WorkerCrash, of that future alone: the executor goes on.
    """

    def __init__(self, max_workers: int | None = None, **pool: Any) -> None:
        """max_workers and the rest: as of Pool."""
        self._pool = Pool(max_workers, **pool)
        self._functions: WeakKeyDictionary[Callable[..., Any], ZefFunction] = WeakKeyDictionary()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As Executor.submit; blocks while the pool's queue is full."""
        return self._pool.submit(self._call_of(function)(*args, **kwargs))

    def _call_of(self, function: Callable[..., Any]) -> ZefFunction:
        try:
            call = self._functions.get(function)
            if call is None:
                call = self._functions[function] = as_call(function)
        except TypeError:  # it has no hash, or cannot be referred to weakly, as most of what is written in C
            return as_call(function)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As Executor.shutdown: what was submitted runs to its end, but for what cancel_futures takes from the queue."""
        join = functools.partial(self._pool.join, cancel_waiting=cancel_futures)
        if wait:
            join()
        else:
            threading.Thread(target=join, name="fxcell-pool-shutdown", daemon=True).start()
