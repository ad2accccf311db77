"""A pool closed or joined under load, from wherever: every call has its documented outcome, once, and nothing hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
import time

import pytest

from fxcell import EffectError, Pool, PoolClosed, Reason, WorkerCrash
from tests.host.misuse import PATIENCE_S, POLICY, held, in_time, linger, outcome_of, work, work_later
from tests.host.misuse import nothing_left as nothing_left  # noqa: PLC0414 - the fixture
from tests.host.misuse import template as template  # noqa: PLC0414 - the fixture
from tests.host.pools import acts, counted


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


def from_here(pool, close):
    close(pool)


def from_another_thread(pool, close):
    in_time(close, pool)


def from_a_done_callback(pool, close):
    future, let_go = held(pool)
    closed = threading.Event()
    future.add_done_callback(lambda _future: (close(pool), closed.set()))
    let_go()
    assert future.result(PATIENCE_S) == "held"
    assert closed.wait(PATIENCE_S)


def from_a_callback_of_a_cancelled(pool, close):
    future = pool.submit(work("cancelled"))
    future.add_done_callback(lambda _future: close(pool))
    assert future.cancel()


def from_an_effect_handler(pool, close):
    closing(pool, close, work)


def from_an_async_effect_handler(pool, close):
    closing(pool, close, work_later)


def closing(pool, close, function):
    closed = threading.Event()
    acts["closing"] = lambda _context: (close(pool), closed.set())[:0]
    future = pool.submit(function("closing"))
    assert closed.wait(PATIENCE_S), "closing from an effect handler hangs"
    assert outcome_of(future).reason is Reason.STOPPED


CLOSERS = (from_here, from_another_thread, from_a_done_callback, from_a_callback_of_a_cancelled, from_an_effect_handler,
           from_an_async_effect_handler)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("closer", CLOSERS, ids=lambda closer: closer.__name__)
def test_pool_closed_under_load_ends_or_cancels_every_command_once_and_refuses_the_next(closer):
    workers = 3
    pool = Pool(workers, policy=POLICY)
    lingering = [pool.submit(linger(f"linger {n}")) for n in range(workers - 1)]
    wait_until(lambda: len(counted) == workers - 1, "the workers have their commands")
    if closer is from_a_callback_of_a_cancelled:
        lingering.append(pool.submit(linger("linger 2")))
        wait_until(lambda: len(counted) == workers, "every worker has a command")
    if closer in (from_here, from_another_thread, from_a_callback_of_a_cancelled):
        waiting = [pool.submit(work(f"waits {n}")) for n in range(30)]
        closer(pool, Pool.close)
    else:
        waiting = []
        closer(pool, lambda pool: (waiting.extend(pool.submit(work(f"waits {n}")) for n in range(30)), pool.close()))
    assert {outcome_of(future).reason for future in lingering} == {Reason.STOPPED}
    assert concurrent.futures.wait(waiting, PATIENCE_S).not_done == set()
    for n, future in enumerate(waiting):
        if future.cancelled():
            assert counted[f"waits {n}"] == 0, "a command that was cancelled had begun"
        else:
            outcome = outcome_of(future)
            assert outcome == f"waits {n}" or isinstance(outcome, WorkerCrash | PoolClosed), outcome
    assert max(counted.values()) == 1
    for call in (pool.run, pool.submit, lambda command: asyncio.run(pool.aio(command))):
        with pytest.raises(PoolClosed):
            in_time(call, work("after"))
    in_time(pool.close)
    in_time(pool.join)
    assert pool.workers == 0
    assert "after" not in counted


@pytest.mark.parametrize("way", ["done-callback", "effect handler"])
def test_join_from_within_the_pool_is_refused_instead_of_waiting_for_itself(way):
    told = concurrent.futures.Future()

    def join(*_):
        try:
            told.set_result(pool.join())
        except EffectError as error:
            told.set_exception(error)

    pool = Pool(1, policy=POLICY)
    if way == "done-callback":
        future, let_go = held(pool)
        future.add_done_callback(join)
        let_go()
    else:
        acts["x"] = join
        future = pool.submit(work("x"))
    with pytest.raises(EffectError, match="would wait for itself"):
        told.result(PATIENCE_S)
    assert future.result(PATIENCE_S) in ("x", "held")
    assert pool.run(work("after")) == "after"
    in_time(pool.join)


def test_pool_closed_from_two_handlers_at_once_ends_both_commands():
    both = threading.Barrier(2)

    def close(_context):
        both.wait(PATIENCE_S)
        pool.close()

    acts["a"] = acts["b"] = close
    pool = Pool(2, policy=POLICY)
    futures = [pool.submit(work(item)) for item in "ab"]
    for future in futures:
        assert outcome_of(future).reason is Reason.STOPPED
    in_time(pool.close)


@pytest.mark.slow
def test_pool_closed_while_many_threads_use_it_gives_each_call_one_documented_outcome():
    pool = Pool(2, policy=POLICY)
    outcomes: dict[str, object] = {}
    enough = threading.Event()

    def call(name):
        for n in itertools.count():
            item = f"{name}-{n}"
            try:
                outcomes[item] = pool.run(work(item)) if n % 2 else pool.submit(work(item)).result(PATIENCE_S)
            except PoolClosed:
                return
            except (WorkerCrash, concurrent.futures.CancelledError) as outcome:
                outcomes[item] = outcome
            if len(outcomes) > 200:
                enough.set()

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        calling = [threads.submit(call, name) for name in "abcdefgh"]
        assert enough.wait(PATIENCE_S)
        in_time(pool.close)
        for future in calling:
            future.result(PATIENCE_S)
    for item, outcome in outcomes.items():
        if isinstance(outcome, WorkerCrash):
            assert outcome.reason is Reason.STOPPED
            assert counted[item] <= 1
        else:
            assert counted[item] == (0 if isinstance(outcome, concurrent.futures.CancelledError) else 1)
