"""Tasks, loops, threads and a child of a fork that use one pool: each call is answered once, and nobody takes from another."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import subprocess
import sys
from collections import Counter

import pytest

from fxcell import FX, Pool, run, zef_function
from tests.host.misuse import PATIENCE_S, POLICY, in_time, linger, work
from tests.host.misuse import nothing_left as nothing_left  # noqa: PLC0414 - the fixture
from tests.host.misuse import template as template  # noqa: PLC0414 - the fixture
from tests.host.pools import counted


@zef_function
def spend(item, seconds):
    import time

    FX.Step(item=item) | run
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return item


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what is waited for happens in other threads
        await asyncio.sleep(0.001)


# --- asyncio and threads


@pytest.mark.slow
def test_asyncio_tasks_cancelled_under_load_end_alone_and_leave_room_for_others():
    chosen = random.Random(5).sample(range(300), 60)

    async def main(pool):
        tasks = [asyncio.create_task(pool.aio(spend(str(n), 0.001))) for n in range(300)]
        for n in chosen:
            await until(lambda n=n: counted[str(n)] or tasks[max(0, n - 20)].done())
            tasks[n].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with Pool(2, policy=POLICY, queue=10) as pool:
        found = in_time(asyncio.run, main(pool))
        assert in_time(pool.map, work, map(str, range(1000, 1050))) == [str(n) for n in range(1000, 1050)]
    for n, outcome in enumerate(found):
        assert outcome == str(n) or (n in chosen and isinstance(outcome, asyncio.CancelledError)), (n, outcome)
        assert counted[str(n)] == 1 or n in chosen
    assert max(counted.values()) == 1


def test_loop_that_ends_with_its_tasks_under_way_leaves_the_pool_at_work():
    async def main(pool):
        for n in range(6):
            asyncio.ensure_future(pool.aio(linger(str(n))))  # noqa: RUF006 - nobody holds it: that is what is tried
        await until(lambda: len(counted) == 2)

    with Pool(2, policy=POLICY) as pool:
        in_time(asyncio.run, main(pool))
        assert in_time(pool.map, work, ["a", "b"]) == ["a", "b"]
    assert max(counted.values()) == 1


def test_submit_from_many_threads_is_answered_once_each():
    with Pool(2, policy=POLICY, queue=16) as pool, concurrent.futures.ThreadPoolExecutor(16) as threads:
        futures = list(threads.map(lambda n: pool.submit(work(str(n))), range(600)))
        assert [future.result(PATIENCE_S) for future in futures] == [str(n) for n in range(600)]
    assert counted == Counter(map(str, range(600)))


# --- a process that forks

CHILD = """
import os, sys
import fxcell
from fxcell import Pool, zef_function

@zef_function
def add(a, b):
    return a + b

@zef_function
def linger():
    import time
    time.sleep(3600)

pool = Pool(2, min_workers=2)
hanging = pool.submit(linger())
child = os.fork()
if child == 0:
    for use in (lambda: pool.run(add(1, 2)), lambda: pool.submit(add(1, 2)), lambda: pool.map(add, [1], [2]), pool.join):
        try:
            use()
        except fxcell.PoolClosed as told:
            assert "fork" in str(told), told
        else:
            assert use is not pool.run
    pool.close()
    with Pool(1) as own:
        assert own.run(add(1, 2)) == 3
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pool.run(add(1, 2)) == 3, "the child took a worker from its parent"
assert not hanging.done()
assert pool.started == 2
pool.close()
print("done")
"""


def test_child_of_a_fork_is_told_that_the_pool_is_its_parents_and_takes_nothing_from_it():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == ("done\n", "")
