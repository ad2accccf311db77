"""Very many calls over a pool: the host's memory stays where it was. A small run is part of the tests; see `make test-soak`.

Calls go in every way there is (run, submit, map, aio), with values of several kinds and sizes, with effects, errors and crashes,
and over workers that are recycled. FXCELL_SOAK_CALLS says how many.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import time
import tracemalloc

import psutil
import pytest

from fxcell import FX, PluginError, Pool, WorkerCrash, zef_function
from tests.leaks import assert_nothing_left

CALLS = int(os.environ.get("FXCELL_SOAK_CALLS", "3000"))
WARM_CALLS = min(10_000, CALLS // 3)
"""Calls after which the host has all that it keeps: code, threads, buffers."""
GROWTH_BYTES_MAX = 5 << 20
SECONDS_MAX = 600
ROUND_CALLS = 1000


@zef_function
def echo(value):
    return value


@zef_function
def misbehave(how):
    import os

    if how == "exit":
        os._exit(3)
    raise ValueError(how)


@zef_function
def ask(low):
    return (FX.Now() | run) > low


from fxcell import run  # noqa: E402  (in a worker the function above finds it as a global; here it is the host's)

VALUES = (None, 7, "text" * 10, b"x" * 1000, [1, 2.5, {"a": (True, None)}], b"y" * 100_000, "z" * 50_000)


def one_round(pool, threads):
    """A thousand calls; every outcome is looked at."""
    values = list(itertools.islice(itertools.cycle(VALUES), 300))
    assert pool.map(echo, values) == values
    assert sorted(pool.imap(echo, range(150), ordered=False)) == list(range(150))
    for value in values:
        assert pool.run(echo(value)) == value
    futures = [pool.submit(echo(n)) for n in range(100)]
    assert [future.result() for future in futures] == list(range(100))
    assert list(threads.map(lambda n: pool.run(echo(n)), range(60))) == list(range(60))
    assert pool.map(ask, [0.0] * 50) == [True] * 50

    async def many():
        return await asyncio.gather(*(pool.aio(echo(n)) for n in range(30)))

    assert asyncio.run(many()) == list(range(30))
    for n in range(9):
        assert isinstance(pool.outcome(misbehave(f"raise {n}")), PluginError)
    assert isinstance(pool.outcome(misbehave("exit")), WorkerCrash)


def own_bytes():
    gc.collect()
    return psutil.Process().memory_full_info().uss


def what_grew(pool, threads):
    """Where the memory went, of a few rounds more: tracing all of them would take too long."""
    tracemalloc.start(12)
    one_round(pool, threads)
    gc.collect()
    before = tracemalloc.take_snapshot()
    for _ in range(10):
        one_round(pool, threads)
    gc.collect()
    found = tracemalloc.take_snapshot().compare_to(before, "traceback")
    tracemalloc.stop()
    return "\n".join(f"{change}\n" + "\n".join(change.traceback.format()[-12:]) for change in found[:10])


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX + 120)
def test_hosts_memory_stays_where_it_was_over_very_many_calls():
    assert run(FX.Now()) > 0
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run  # the template process of the policy stays
    with (
        assert_nothing_left(patience_s=10),
        Pool(2, recycle_after=5000, quarantine_after=10**9) as pool,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        started, calls = time.monotonic(), 0
        while calls < WARM_CALLS:
            one_round(pool, threads)
            calls += ROUND_CALLS
        warm_bytes, seen = own_bytes(), []
        while calls < CALLS:
            one_round(pool, threads)
            calls += ROUND_CALLS
            if len(seen) < calls * 10 // CALLS:
                seen.append(own_bytes() - warm_bytes)
        growth, seconds = own_bytes() - warm_bytes, time.monotonic() - started
        print(f"\n{calls} calls in {seconds:.0f} s ({calls / seconds:.0f}/s), {pool.started} workers were started")
        print(f"the host's own memory after {WARM_CALLS} calls: {warm_bytes / 2**20:.1f} MiB; growth since, in ten looks:")
        print("  " + " ".join(f"{grown / 2**20:+.2f}" for grown in seen) + f" MiB; at the end {growth / 2**20:+.2f} MiB")
        assert growth < GROWTH_BYTES_MAX, what_grew(pool, threads)
        assert seconds < SECONDS_MAX
