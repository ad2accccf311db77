"""A pool as a concurrent.futures.Executor: for `loop.run_in_executor` and libraries that take an executor."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import operator
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from fxcell.host import registry
from fxcell.host.pool.pool import Pool
from fxcell.policies.calls import ZefFunction, as_call

_FUNCTIONS_KEPT = 256
"""Functions whose code is not written down again at each submit."""


class PoolExecutor(Executor):
    """Functions and other callables, sent by value with what they capture, to the workers of a pool of its own.

    What a function raises comes back as PluginError, and a crash as WorkerCrash, of that future alone: the executor goes on.
    Unlike a Pool it is waited for at the end of the program: what was submitted by then runs to its end, as of every
    Executor. Arrays come back read-only; copy one to change it.
    """

    def __init__(self, max_workers: int | None = None, **pool: Any) -> None:
        """max_workers and the rest: as of Pool."""
        registry.prepare()  # what is submitted runs also when the main thread has ended
        self._pool = Pool(max_workers, **pool)
        self._chunks = _Chunks(self._pool)
        self._prepared = functools.lru_cache(_FUNCTIONS_KEPT)(as_call)
        _pools.add(self._pool)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As Executor.submit; blocks while the pool's queue is full."""
        return self._pool.submit(self._call_of(function)(*args, **kwargs))

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **more: Any
    ) -> Iterator[Any]:  # fmt: skip
        """As Executor.map. With a chunksize over 1 short calls travel many at a time; each still has an outcome of its own.

        What is raised is the outcome of that call alone: those before it in its chunk have been answered.
        """
        chunksize = operator.index(chunksize)
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, got {chunksize}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        rows = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(itertools.islice(rows, chunksize)), ())
        call: Any = self._call_of(fn)
        return _one_by_one(self._chunks.map(call, chunks, timeout=timeout, **more))

    def _call_of(self, function: Callable[..., Any]) -> ZefFunction:
        if isinstance(function, ZefFunction):
            return function
        if inspect.isfunction(function) and not (function.__closure__ or function.__defaults__ or function.__kwdefaults__):
            return self._prepared(function)
        return as_call(function)  # anew each time: the object of a bound method may have changed since

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As Executor.shutdown: what was submitted runs to its end, but for what cancel_futures takes from the queue."""
        join = functools.partial(self._pool.join, cancel_waiting=cancel_futures)
        if wait:
            join()
        else:
            threading.Thread(target=join, name="fxcell-pool-shutdown", daemon=True).start()


class _Chunks(Executor):
    """Lends Executor.map its eager start, its timeout and its cancelling, for chunks of rows."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def submit(self, function: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> Future[Any]:
        """Have one chunk run."""
        (rows,) = args
        return self._pool.submit_many(function, rows)


def _one_by_one(chunks: Any) -> Iterator[Any]:
    with contextlib.closing(chunks):  # which cancels those that no worker has begun
        for outcomes in chunks:
            for outcome in outcomes:
                if isinstance(outcome, Exception):  # no result is one: they do not travel
                    raise outcome
                yield outcome


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _finish() -> None:
    """At the end of the program: what was submitted to executors runs to its end. Its workers' limits see to that end."""
    for pool in list(_pools):
        pool.join()


# Before the interpreter's exit handlers, one of which ends all workers; as concurrent.futures does for its own threads. A
# module that is first imported while the interpreter ends is refused, and has nothing to wait for.
with contextlib.suppress(RuntimeError):
    getattr(threading, "_register_atexit")(_finish)  # noqa: B009 - no stub knows it
