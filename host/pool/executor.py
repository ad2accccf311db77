"""A pool as a concurrent.futures.Executor: for `loop.run_in_executor` and libraries that take an executor."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any
from weakref import WeakKeyDictionary

from fxcell.host.pool.pool import Pool
from fxcell.policies.calls import ZefFunction, zef_function


class PoolExecutor(Executor):
    """Plain functions, sent by value with what they capture, to the workers of a pool of its own.

    What a function raises comes back as PluginError, and a crash as WorkerCrash, of that future alone: the executor goes on.
    """

    def __init__(self, max_workers: int | None = None, **pool: Any) -> None:
        """max_workers and the rest: as of Pool."""
        self._pool = Pool(max_workers, **pool)
        self._functions: WeakKeyDictionary[Callable[..., Any], ZefFunction] = WeakKeyDictionary()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As Executor.submit; blocks while the pool's queue is full."""
        if isinstance(function, ZefFunction):
            return self._pool.submit(function(*args, **kwargs))
        call = self._functions.get(function)
        if call is None:
            call = self._functions[function] = zef_function(function)
        return self._pool.submit(call(*args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As Executor.shutdown: what was submitted runs to its end, but for what cancel_futures takes from the queue."""
        join = functools.partial(self._pool.join, cancel_waiting=cancel_futures)
        if wait:
            join()
        else:
            threading.Thread(target=join, name="fxcell-pool-shutdown", daemon=True).start()
