"""Process pools behind one interface. Each is used as its own documentation says, with its default start method.

ProcessPoolExecutor   concurrent.futures: a crash breaks it; a new one is made
multiprocessing.Pool  a crash loses the call: its result never comes; the pool replaces the worker
Pebble                pebble.ProcessPool: a crash fails its own call
loky                  loky.get_reusable_executor: a crash breaks it; asking for it again gives a new one
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from benchmarks import work
from benchmarks.clock import Absent, NoFigure

PATIENCE_S = 30.0
LOST_AFTER_S = 2.0
NAMES = ("ProcessPoolExecutor", "multiprocessing.Pool", "Pebble", "loky")


class Pool(Protocol):
    """One pool. crash: returns once the caller knows; recover: makes it usable after that."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any: ...
    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> None: ...
    def crash(self, number: int) -> None: ...
    def recover(self) -> None: ...
    def close(self) -> None: ...


def opened(name: str, workers: int, *, fresh: bool = False, large: bool = False) -> Pool:
    """A pool by its name. fresh: a new process for each call. large: values of hundreds of MiB. Raises ImportError."""
    if name.startswith("fxcell"):
        from benchmarks.peers.ours import OurPool

        return OurPool(workers, fresh=fresh, large=large)
    kinds = {
        "ProcessPoolExecutor": Executor, "multiprocessing.Pool": StandardPool, "Pebble": PebblePool, "loky": Loky,
    }  # fmt: skip
    return kinds[name](workers, fresh=fresh)


class Executor:
    """concurrent.futures.ProcessPoolExecutor."""

    def __init__(self, workers: int, *, fresh: bool) -> None:
        self._options = {"max_workers": workers} | ({"max_tasks_per_child": 1} if fresh else {})
        self._pool = concurrent.futures.ProcessPoolExecutor(**self._options)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.submit(function, *args).result(PATIENCE_S)

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> None:
        for _ in self._pool.map(function, items, chunksize=chunk, timeout=PATIENCE_S):
            pass

    def crash(self, number: int) -> None:
        _expect(concurrent.futures.BrokenExecutor, lambda: self.call(work.die, number))

    def recover(self) -> None:
        self._pool.shutdown(wait=False)
        self._pool = concurrent.futures.ProcessPoolExecutor(**self._options)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class StandardPool:
    """multiprocessing.Pool."""

    def __init__(self, workers: int, *, fresh: bool) -> None:
        self._pool = multiprocessing.Pool(workers, maxtasksperchild=1 if fresh else None)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply_async(function, args).get(PATIENCE_S)

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> None:
        self._pool.map_async(function, items, chunksize=chunk).get(PATIENCE_S)

    def crash(self, number: int) -> None:
        try:
            self._pool.apply_async(work.die, (number,)).get(LOST_AFTER_S)
        except multiprocessing.TimeoutError:
            raise NoFigure(f"the call of a worker that died is lost: no result within {LOST_AFTER_S:g} s") from None

    def recover(self) -> None:
        pass

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class PebblePool:
    """pebble.ProcessPool."""

    def __init__(self, workers: int, *, fresh: bool) -> None:
        import pebble

        self._expired = pebble.ProcessExpired
        self._pool = pebble.ProcessPool(max_workers=workers, max_tasks=1 if fresh else 0)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.schedule(function, args=args).result(PATIENCE_S)

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> None:
        for _ in self._pool.map(function, items, chunksize=chunk, timeout=PATIENCE_S).result():
            pass

    def crash(self, number: int) -> None:
        _expect(self._expired, lambda: self.call(work.die, number))

    def recover(self) -> None:
        pass

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


class Loky:
    """loky.get_reusable_executor."""

    def __init__(self, workers: int, *, fresh: bool) -> None:
        import loky

        if fresh:
            raise Absent("it has no option for a new process for each call")
        self._get = lambda: loky.get_reusable_executor(max_workers=workers, timeout=600)
        self._pool = self._get()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.submit(function, *args).result(PATIENCE_S)

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> None:
        for _ in self._pool.map(function, items, chunksize=chunk, timeout=PATIENCE_S):
            pass

    def crash(self, number: int) -> None:
        _expect(concurrent.futures.BrokenExecutor, lambda: self.call(work.die, number))

    def recover(self) -> None:
        self._pool = self._get()

    def close(self) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)


def _expect(kind: type[BaseException], action: Callable[[], object]) -> None:
    try:
        action()
    except kind:
        return
    raise NoFigure("a call that ends its worker came back as if nothing had happened")
