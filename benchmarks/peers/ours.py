"""fxcell as a pool like the others, and what only fxcell has: effects, starts of workers, memory of workers."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

import fxcell.host
from benchmarks import placing, work
from benchmarks.clock import Absent, NoFigure, latencies, timed
from fxcell import FX, Policy, Pool, WorkerCrash, WorkerProcess, load_policy, run, zef_function
from fxcell.host import registry
from fxcell.policies.limits import GiB

_HUGE = 2**50


def large_policy() -> Policy:
    """compute, with room for values of 256 MiB and their copies."""
    policy = load_policy("compute")
    limits = dataclasses.replace(policy.limits, memory_bytes=4 * GiB, message_bytes=1 * GiB)
    return dataclasses.replace(policy, name="compute-large", limits=limits)


@functools.cache
def _as_call(function: Callable[..., Any]) -> Any:
    return zef_function(function)


class OurPool:
    """fxcell.Pool behind the interface of benchmarks/peers/pools.py."""

    def __init__(self, workers: int, *, fresh: bool, large: bool) -> None:
        policy = large_policy() if large else None
        self._pool = Pool(
            workers, min_workers=0 if fresh else workers, policy=policy, fresh=fresh, recycle_growth_bytes=_HUGE,
            recycle_after=_HUGE,
        )  # fmt: skip

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.run(_as_call(function)(*args))

    def map(self, function: Callable[..., Any], items: Iterable[Any], _chunk: int) -> None:
        for _ in self._pool.imap(_as_call(function), items):
            pass

    def crash(self, number: int) -> None:
        try:
            self.call(work.die, number)
        except WorkerCrash:
            return
        raise NoFigure("a call that ends its worker came back as if nothing had happened")

    def recover(self) -> None:
        pass

    def close(self) -> None:
        self._pool.close()


@contextmanager
def _worker(here: int | None = None, there: int | None = None) -> Iterator[WorkerProcess]:
    """A worker; with CPUs, this process is pinned to `here` and the worker to `there`."""
    if here is not None and there is not None:
        # The CPUs that are there when a worker starts decide whether it may wait without sleeping.
        os.sched_setaffinity(0, {here, there})
    worker = FX.StartWorkerProcess() | run
    try:
        if here is not None and there is not None:
            placing.pin([0], here)
            placing.pin([child.pid for child in psutil.Process(registry.session_of(worker).pid).children()], there)
        yield worker
    finally:
        FX.StopWorkerProcess(process=worker) | run
        fxcell.host.shutdown()


def command(here: int | None, there: int | None, calls: int, slice_s: float) -> Iterator[list[float]]:
    """Seconds of a no-op command sent to a warm worker."""
    with _worker(here, there) as worker:
        no_op = FX.SendCommandToWorkerProcess(process=worker, command=_as_call(work.nothing)())
        while True:
            yield latencies(lambda: no_op | run, calls, slice_s)


def effect(here: int | None, there: int | None, calls: int) -> Iterator[list[float]]:
    """Seconds of FX.Now, by the clock of the worker that asks."""

    @zef_function
    def ask_the_time(count: int) -> list[float]:
        import time

        samples = []
        for _ in range(count):
            start = time.perf_counter()
            FX.Now() | run
            samples.append(time.perf_counter() - start)
        return samples

    with _worker(here, there) as worker:
        asking = FX.SendCommandToWorkerProcess(process=worker, command=ask_the_time(calls))
        asking | run
        while True:
            yield asking | run


def inside(rounds: int, cpu: int) -> Iterator[list[float]]:
    """Seconds of a calculation in a worker, by the worker's clock, all on one CPU."""
    with _worker(cpu, cpu) as worker:
        calculation = FX.SendCommandToWorkerProcess(process=worker, command=_as_call(work.calculate_timed)(rounds))
        calculation | run
        while True:
            yield [calculation | run]


def starts(count: int) -> Iterator[list[float]]:
    """Seconds of the start of a worker from a warm template; `count` of them one after the other at each step."""
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run
    while True:
        samples = []
        for _ in range(count):
            workers: list[WorkerProcess] = []
            samples.append(timed(lambda kept=workers: kept.append(FX.StartWorkerProcess() | run)))
            FX.StopWorkerProcess(process=workers[0]) | run
        yield samples


def starts_beside(step: int) -> Iterator[list[float]]:
    """Seconds of `step` more starts at each step, while all workers started before stay alive."""
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run
    while True:
        yield [timed(lambda: FX.StartWorkerProcess() | run) for _ in range(step)]


def memory(counts: list[int], supervisors: bool) -> Iterator[list[float]]:
    """USS in bytes of each idle worker, of counts[i] living ones at step i; with or without its supervisor."""
    workers: list[WorkerProcess] = []
    for count in counts:
        while len(workers) < count:
            worker = FX.StartWorkerProcess() | run
            FX.SendCommandToWorkerProcess(process=worker, command=_as_call(work.nothing)()) | run
            workers.append(worker)
        yield [_uss_bytes(registry.session_of(worker).pid, supervisors) for worker in workers]


def _uss_bytes(supervisor: int, supervisors: bool) -> float:
    parent = psutil.Process(supervisor)
    try:
        processes = [*parent.children(recursive=True), *([parent] if supervisors else [])]
        return float(sum(process.memory_full_info().uss for process in processes))
    except psutil.AccessDenied:
        raise Absent("only root may read the memory maps of workers") from None
