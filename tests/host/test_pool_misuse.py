"""Callers and callbacks that do what they should not, under load: each call has its documented outcome, once, and nothing hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from fxcell import (
    FX,
    Effect,
    EffectError,
    EffectFailed,
    EncodeError,
    MessageTooLarge,
    PluginError,
    Pool,
    PoolClosed,
    Reason,
    WorkerCrash,
    handles,
    load_policy,
    run,
    zef_function,
)  # fmt: skip
from fxcell.host import templates
from tests.host.pools import acts, counted, step
from tests.leaks import assert_nothing_left

PATIENCE_S = 30.0
class StepLater(Effect):
    """The same, by a coroutine."""

    item: str


@handles(StepLater)
async def tell_later(effect, context):
    await asyncio.sleep(0)
    return step(effect, context)


POLICY = load_policy("compute").replaced(name="misuse", effects={"Step": True, "StepLater": True})


@pytest.fixture(autouse=True, scope="module")
def template():
    FX.Step(item="") | run  # what handlers need once is there before anything is counted, a loop for coroutines too
    FX.StepLater(item="") | run
    templates.template_for(POLICY)
    yield
    templates.close(POLICY)


@pytest.fixture(autouse=True)
def nothing_left(template):
    counted.clear()
    acts.clear()
    with assert_nothing_left():
        yield


@zef_function
def work(item):
    FX.Step(item=item) | run
    return item


@zef_function
def work_later(item):
    FX.StepLater(item=item) | run
    return item


@zef_function
def answer_a_lock(item):
    import threading

    FX.Step(item=item) | run
    return threading.Lock()


@zef_function
def spend(item, seconds):
    import time

    FX.Step(item=item) | run
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return item


@zef_function
def linger(item):
    import time

    FX.Step(item=item) | run
    time.sleep(3600)


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


def in_time(act, *arguments):
    """Call in another thread: what hangs fails here, and not at the limit of the whole run."""
    future = concurrent.futures.Future()

    def call():
        try:
            future.set_result(act(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future.result(PATIENCE_S)


def outcome_of(future):
    return future.exception(PATIENCE_S) or future.result()


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what is waited for happens in other threads
        await asyncio.sleep(0.001)


# --- values that cannot travel

UNSENDABLE = {
    "a lock": (threading.Lock, EncodeError),
    "a lock deep inside": (lambda: [{"a": (1, threading.Lock())}], EncodeError),
    "a generator": (lambda: (n for n in range(3)), EncodeError),
    "a message too large": (lambda: "x" * (17 << 20), MessageTooLarge),
}


@pytest.mark.parametrize("way", ["run", "submit", "aio", "map", "map, errors returned"])
@pytest.mark.parametrize("what", UNSENDABLE)
def test_value_that_cannot_travel_is_told_to_who_sent_it_and_costs_no_worker(what, way):
    make, error = UNSENDABLE[what]
    with Pool(1, min_workers=1, policy=POLICY) as pool:
        with pytest.raises(error):
            if way == "run":
                pool.run(work(make()))
            elif way == "submit":
                pool.submit(work(make())).result(PATIENCE_S)
            elif way == "aio":
                asyncio.run(pool.aio(work(make())))
            else:
                pool.map(work, [make()], on_error="return" if "returned" in way else "raise")
        assert pool.run(work("after")) == "after"
        assert pool.started == 1
    assert counted == Counter(after=1)


def test_value_that_cannot_travel_in_the_middle_of_a_map_ends_the_map_and_nothing_is_done_twice():
    items = [*map(str, range(20)), threading.Lock(), *map(str, range(20, 40))]
    with Pool(2, policy=POLICY) as pool:
        found = []
        with pytest.raises(EncodeError):
            for outcome in pool.imap(work, items, on_error="return"):
                found.append(outcome)  # noqa: PERF402 - what came before the error counts
        assert found == items[: len(found)]
        assert pool.run(work("after")) == "after"
    assert max(counted.values()) == 1
    assert set(found) <= counted.keys()


def test_result_that_cannot_travel_is_the_outcome_of_its_own_item():
    with Pool(1, policy=POLICY) as pool:
        assert isinstance(pool.outcome(answer_a_lock("x")), PluginError)
        assert pool.map(work, ["a", "b"]) == ["a", "b"]
        assert pool.started == 1
    assert counted == Counter(x=1, a=1, b=1)


# --- inputs that raise, iterators that nobody reads to the end


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_inputs_that_raise_reach_the_caller_and_what_was_begun_is_done_once(after, error):
    def failing():
        yield from map(str, range(after))
        raise error

    with Pool(2, policy=POLICY) as pool:
        with pytest.raises(error):
            pool.map(work, failing())
        assert pool.map(work, ["a", "b"]) == ["a", "b"]
    assert max(counted.values()) == 1
    assert counted.keys() <= {*map(str, range(after)), "a", "b"}


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as they come"])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_iterator_abandoned_half_way_drops_what_waits_and_the_pool_goes_on(taken, ordered):
    asked = []
    inputs = (asked.append(n) or str(n) for n in itertools.count())
    with Pool(2, policy=POLICY) as pool:
        outcomes = pool.imap(work, inputs, ordered=ordered)
        found = list(itertools.islice(outcomes, taken))
        del outcomes
        assert pool.map(work, ["a", "b"]) == ["a", "b"]
        assert len(asked) <= taken + 1000, "an abandoned iterator goes on asking for inputs"
    assert len(found) == len(set(found)) == taken
    assert set(found) <= counted.keys()
    assert max(counted.values()) == 1


def test_many_iterators_abandoned_at_the_same_time_leave_room_for_others():
    with Pool(2, policy=POLICY, queue=8) as pool:
        for n in range(20):
            next(pool.imap(work, (f"{n}-{m}" for m in itertools.count())))
        assert pool.map(work, map(str, range(50))) == [str(n) for n in range(50)]
    assert max(counted.values()) == 1


# --- callbacks and handlers that raise


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_done_callback_that_raises_takes_nothing_from_the_outcome_and_no_thread_from_the_pool(error, caplog):
    def fail(_future):
        raise error

    with Pool(2, policy=POLICY, queue=2, wait_s=PATIENCE_S) as pool:
        futures = []
        for n in range(12):
            futures.append(pool.submit(work(str(n))))
            with contextlib.suppress(error):  # one that has its outcome already calls it here
                futures[-1].add_done_callback(fail)
        assert [future.result(PATIENCE_S) for future in futures] == [str(n) for n in range(12)]
        assert in_time(pool.map, work, ["a", "b"]) == ["a", "b"]
    assert set(counted.values()) == {1}


def held(pool, item="held"):
    """A command that the host holds in its effect until the answer is let go of: (its future, let go)."""
    let_go, began = threading.Event(), threading.Event()
    acts[item] = lambda _context: (began.set(), let_go.wait(PATIENCE_S))[:0]
    future = pool.submit(work(item))
    assert began.wait(PATIENCE_S)
    return future, let_go.set


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_done_callback_that_raises_for_certain_leaves_the_only_thread_at_work(error):
    def fail(_future):
        raise error

    with Pool(1, policy=POLICY) as pool:
        future, let_go = held(pool)
        future.add_done_callback(fail)
        let_go()
        assert future.result(PATIENCE_S) == "held"
        assert pool.submit(work("after")).result(PATIENCE_S) == "after"
    assert counted == Counter(held=1, after=1)


@pytest.mark.parametrize("function", [work, work_later], ids=["function", "coroutine"])
@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, EffectFailed])
def test_effect_handler_that_raises_is_the_failure_of_its_own_command(function, error):
    def fail(_context):
        raise error(*(["Step", "broken", "as the test wants"] if error is EffectFailed else []))

    acts["3"] = fail
    with Pool(2, policy=POLICY) as pool:
        found = pool.map(function, map(str, range(6)), on_error="return")
        assert pool.started <= 2, "it cost a worker"
    failed = found.pop(3)
    assert isinstance(failed, EffectFailed)
    assert failed.kind == ("broken" if error is EffectFailed else "internal")
    assert found == ["0", "1", "2", "4", "5"]
    assert counted == Counter(map(str, range(6)))


def test_effect_handler_that_is_interrupted_ends_its_own_command_and_worker_and_no_other():
    def interrupt(_context):
        raise KeyboardInterrupt

    acts["x"] = interrupt
    with Pool(1, policy=POLICY) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.submit(work("x")).result(PATIENCE_S)
        assert pool.submit(work("after")).result(PATIENCE_S) == "after"
        assert pool.started == 2
    assert counted == Counter(x=1, after=1)


# --- closed under load


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
