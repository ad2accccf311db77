"""What is asked of any pool, fxcell's included, by its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from benchmarks import placing, work
from benchmarks.clock import Absent, NoFigure, Rate, latencies, timed
from benchmarks.peers.pools import opened

_ECHO_SLICE_S = 0.3
_FRESH_CALLS = 6


def call(pool: str, here: int | None, there: int | None, calls: int, slice_s: float) -> Iterator[list[float]]:
    """Seconds of a no-op call to a warm pool of one worker; with CPUs, the caller on `here`, the worker on `there`."""
    if here is not None and there is not None:
        # fxcell's workers see which CPUs there are when they start; the others' threads and workers follow what is pinned.
        os.sched_setaffinity(0, {here, there} if pool.startswith("fxcell") else {here})
    with contextlib.closing(opened(pool, 1)) as one:
        worker = one.call(work.pid)
        if here is not None and there is not None:
            placing.pin([0], here)
            placing.pin(_children() if pool.startswith("fxcell") else [worker], there)
        while True:
            yield latencies(lambda: one.call(work.nothing), calls, slice_s)


def _children() -> list[int]:
    """Workers: two generations below their template. What a worker calls its pid is a number of its own namespace."""
    import psutil

    return [process.pid for process in psutil.Process().children(recursive=True) if process.name() == "fxcell-worker"]


def fresh(pool: str, workers: int, slice_s: float, at_once: bool) -> Iterator[list[float]]:
    """Calls per second with a new process for each: one at a time, or as many at once as there are workers."""
    with contextlib.closing(opened(pool, workers, fresh=True)) as many:

        def batch(count: int) -> None:
            if at_once:
                many.map(work.one, range(count), 1)
            else:
                for _ in range(count):
                    many.call(work.nothing)

        rate = Rate(batch, slice_s, first=_FRESH_CALLS)
        while True:
            batch(2 * workers)  # what was started ahead while others had their turn is used up
            yield [rate.take()]


def crash(pool: str, crashes: int) -> Iterator[list[float]]:
    """Seconds from a call that ends its worker to the next good answer, with a pool of one worker."""
    number = 0
    with contextlib.closing(opened(pool, 1)) as one:
        one.call(work.nothing)

        def crash_and_go_on() -> None:
            one.crash(number)
            one.recover()
            one.call(work.nothing)

        while True:
            samples = []
            for _ in range(crashes):
                number += 1
                samples.append(timed(crash_and_go_on))
            yield samples


def no_ops(pool: str, workers: int, chunk: int, slice_s: float) -> Iterator[list[float]]:
    """Calls per second of a map of no-ops."""
    with contextlib.closing(opened(pool, workers)) as many:
        many.map(work.one, range(10 * workers), 1)
        rate = Rate(lambda count: many.map(work.one, range(count), chunk), slice_s, first=100)
        while True:
            yield [rate.take()]


def calculations(pool: str, workers: int, items: int, rounds: int) -> Iterator[list[float]]:
    """Calculations per second of a map of `items` of them."""
    with contextlib.closing(opened(pool, workers)) as many:
        many.map(work.calculate, [rounds] * workers, 1)
        while True:
            yield [items / timed(lambda: many.map(work.calculate, [rounds] * items, 1))]


def memory(pool: str, workers: int) -> Iterator[list[float]]:
    """USS in bytes of each idle worker of a peer's pool. All of them are started: each map item takes a moment."""
    import psutil

    with contextlib.closing(opened(pool, workers)) as many:
        many.map(work.calculate, [100] * workers * 4, 1)
        found = [process for process in psutil.Process().children(recursive=True) if process.cmdline()]
        yield sorted((process.memory_full_info().uss for process in found), reverse=True)[:workers]


def there_and_back(pool: str, kind: str, sizes: list[int], calls: int) -> Iterator[list[float]]:
    """Seconds of the echo of a value of sizes[i] bytes at step i; the last size again and again."""
    with contextlib.closing(opened(pool, 1, large=True)) as one:
        one.call(work.nothing)
        for step in range(2**30):
            value = _value(kind, sizes[min(step, len(sizes) - 1)])
            if step < len(sizes):
                _check_same(kind, one.call(work.echo, value), value)
            yield latencies(lambda sent=value: one.call(work.echo, sent), calls, _ECHO_SLICE_S)


def _value(kind: str, size: int) -> Any:
    if kind == "bytes":
        return b"\x5a" * size
    try:
        import numpy as np
    except ImportError:
        raise Absent("numpy is not installed") from None
    return np.arange(size // 8, dtype=np.int64)


def _check_same(kind: str, got: Any, sent: Any) -> None:
    if not (got == sent if kind == "bytes" else bool((got == sent).all())):
        raise NoFigure("what came back is not what was sent")
