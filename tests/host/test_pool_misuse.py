"""Inputs, callbacks and handlers that do what they should not: each call has its documented outcome, once, and nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter

import pytest

from fxcell import FX, EffectFailed, EncodeError, MessageTooLarge, PluginError, Pool, run, zef_function
from tests.host.misuse import PATIENCE_S, POLICY, held, in_time, work, work_later
from tests.host.misuse import nothing_left as nothing_left  # noqa: PLC0414 - the fixture
from tests.host.misuse import template as template  # noqa: PLC0414 - the fixture
from tests.host.pools import acts, counted


@zef_function
def answer_a_lock(item):
    import threading

    FX.Step(item=item) | run
    return threading.Lock()


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
