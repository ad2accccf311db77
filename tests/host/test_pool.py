"""Pool and PoolExecutor: commands in every way there is, crashes, closing and refusals end as documented, and nothing is left."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import threading

import pytest

from fxcell import (
    EffectError,
    EncodeError,
    PluginError,
    Pool,
    PoolBusy,
    PoolClosed,
    PoolExecutor,
    Reason,
    WorkerCrash,
    zef_function,
)
from tests.host.pools import add, dwell, misbehave, wait_until_busy
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_map_answers_in_the_order_of_the_inputs():
    with Pool(2) as pool:
        assert pool.map(add, range(50), range(50)) == [2 * n for n in range(50)]
        assert pool.workers <= 2


def test_crash_and_error_are_the_outcomes_of_their_own_inputs_alone():
    hows = ["ok", "crash", "raise", "ok"] * 5
    with Pool(2, quarantine_after=100) as pool:
        found = pool.map(misbehave, hows, range(20), on_error="return")
    assert [n for n, outcome in enumerate(found) if outcome == n] == [n for n in range(20) if hows[n] == "ok"]
    assert all(isinstance(found[n], WorkerCrash) and found[n].reason is Reason.SIGNAL for n in range(1, 20, 4))
    assert all(isinstance(found[n], PluginError) for n in range(2, 20, 4))


def test_plain_function_is_mapped_and_results_can_come_as_they_are_done():
    def square(n):
        return n * n

    with Pool(2) as pool:
        assert sorted(pool.imap(square, range(20), ordered=False)) == [n * n for n in range(20)]


def test_endless_inputs_are_taken_only_as_workers_get_free():
    taken = []

    def endless():
        n = 0
        while True:
            taken.append(n)
            yield n
            n += 1

    with Pool(2) as pool:
        found = pool.imap(dwell, endless())
        assert [next(found) for _ in range(10)] == list(range(10))
        found.close()
    assert len(taken) <= 10 + 2 * 2 + 2


def test_inputs_that_raise_and_values_that_cannot_travel_reach_the_caller_and_the_pool_goes_on():
    def failing():
        yield 1
        raise ZeroDivisionError

    with Pool(2) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.map(add, failing(), [1, 2])
        with pytest.raises(EncodeError):
            pool.map(add, [threading.Lock()], [1])
        assert pool.run(add(1, 2)) == 3


def test_close_under_load_ends_what_runs_and_cancels_what_waits():
    pool = Pool(2)
    futures = [pool.submit(misbehave("hang")) for _ in range(6)]
    wait_until_busy(2)
    pool.close()
    concurrent.futures.wait(futures, timeout=30)
    assert [future.cancelled() for future in futures].count(True) == 4
    reasons = [future.exception().reason for future in futures if not future.cancelled()]
    assert reasons == [Reason.STOPPED] * 2
    with pytest.raises(PoolClosed):
        pool.submit(add(1, 2))
    with pytest.raises(PoolClosed):
        pool.run(add(1, 2))


def test_exception_in_with_ends_what_runs():
    with pytest.raises(ZeroDivisionError), Pool(1) as pool:
        hanging = pool.submit(misbehave("hang"))
        wait_until_busy(1)
        raise ZeroDivisionError
    assert hanging.exception().reason is Reason.STOPPED


def test_command_that_finds_no_free_worker_in_time_is_refused_and_was_not_begun():
    with Pool(1, wait_s=0.2, deadline_s=20) as pool:
        hanging = pool.submit(misbehave("hang"))
        wait_until_busy(1)
        with pytest.raises(PoolBusy, match="none of the 1 workers was free"):
            pool.run(add(1, 2))
        pool.close()
        assert isinstance(hanging.exception(), WorkerCrash)


def test_full_queue_holds_the_submitter_up():
    with Pool(1, queue=1, wait_s=0.2, deadline_s=20) as pool:
        for _ in range(2):
            pool.submit(misbehave("hang"))
        with pytest.raises(PoolBusy, match="queue of the pool was full"):
            pool.submit(add(1, 2))
        pool.close()


def test_asyncio_runs_many_and_cancelling_one_ends_its_worker():
    async def main(pool):
        assert await asyncio.gather(*(pool.aio(add(n, n)) for n in range(20))) == [2 * n for n in range(20)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.aio(misbehave("hang")), 0.3)
        return await pool.aio(add(1, 2))

    with Pool(1, queue=2) as pool:
        assert asyncio.run(main(pool)) == 3


def test_executor_runs_plain_functions_unchanged_and_survives_a_crash():
    def cube(n):
        return n**3

    def die():
        import os

        os._exit(3)

    with PoolExecutor(2) as executor:
        assert list(executor.map(cube, range(10))) == [n**3 for n in range(10)]
        assert isinstance(executor.submit(die).exception(), WorkerCrash)
        assert executor.submit(cube, 3).result() == 27

        async def main():
            return await asyncio.get_running_loop().run_in_executor(executor, cube, 4)

        assert asyncio.run(main()) == 64
    with pytest.raises(PoolClosed):
        executor.submit(cube, 1)


def test_commands_from_many_threads_are_each_answered_once():
    with Pool(2) as pool, concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: pool.run(add(n, 1)), range(200))) == list(range(1, 201))


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": True}, {"workers": 2, "min_workers": 3}, {"queue": 0}, {"deadline_s": float("inf")},
              {"idle_s": -1}, {"wait_s": float("nan")}, {"recycle_after": 1.5}],
)  # fmt: skip
def test_argument_out_of_range_is_told_by_name(wrong):
    with pytest.raises(EffectError, match=list(wrong)[-1]):
        Pool(**wrong)


def test_command_beside_an_endless_map_gets_its_turn():
    with Pool(1, wait_s=20) as pool:
        found = pool.imap(dwell, itertools.repeat(1))
        eaten = threading.Event()
        stop = threading.Event()

        def eat():
            for _ in found:
                eaten.set()
                if stop.is_set():
                    break
            found.close()

        eater = threading.Thread(target=eat)
        eater.start()
        assert eaten.wait(30)
        assert [pool.run(add(n, 1)) for n in range(5)] == [1, 2, 3, 4, 5]
        stop.set()
        eater.join(30)


def test_result_of_a_slow_source_comes_before_its_next_inputs():
    taken = []
    answered = threading.Event()

    def source():
        for n in range(6):
            taken.append(n)
            yield n
            if n == 0:
                assert answered.wait(30)  # the first has its result now, and the second input is asked for

    with Pool(2) as pool:
        found = pool.imap(add, source(), [0] * 6, ordered=False)
        original = pool._sender.many

        def many(*args):
            sent = original(*args)
            answered.set()
            return sent

        pool._sender.many = many
        assert next(found) == 0
        assert len(taken) <= 3
        assert sorted(found) == [1, 2, 3, 4, 5]


class _Adder:
    def __init__(self, base):
        self.base = base

    def __call__(self, n):
        return self.base + n


def test_executor_takes_whatever_can_be_called_and_refuses_as_executors_do():
    with PoolExecutor(1) as executor:
        assert executor.submit(functools.partial(int, base=2), "101").result() == 5
        assert executor.submit(str.upper, "a").result() == "A"
        assert executor.submit(_Adder(2), 3).result() == 5
        assert list(executor.map(len, ["a", "bc"])) == [1, 2]
        with pytest.raises(EffectError, match="int cannot be called"):
            executor.submit(3)
    with pytest.raises(RuntimeError):
        executor.submit(str.upper, "a")


def test_error_of_a_map_that_is_no_outcome_says_which_input_it_was():
    with Pool(1) as pool, pytest.raises(EncodeError) as caught:
        pool.map(add, [1, 2, threading.Lock()], [1, 2, 3], on_error="return")
    assert caught.value.__notes__ == ["this was input 2 of the map, counted from 0"]


@zef_function
def pool_inside():
    import fxcell

    return fxcell.Pool(2)


def test_pool_inside_a_worker_is_told_to_belong_to_the_host():
    with Pool(1) as pool, pytest.raises(PluginError, match="pools belong to the host"):
        pool.run(pool_inside())
