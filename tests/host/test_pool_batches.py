"""Batches: many calls in one message to a worker, each still with an outcome of its own, run once, and its own deadline."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict

import pytest

from fxcell import FX, EncodeError, Pool, PoolClosed, Quarantined, Reason, WorkerCrash, run, zef_function
from fxcell.host import audit, batching, registry
from fxcell.host.pool.quarantine import Quarantine
from fxcell.policies import values
from fxcell.policies.crash import Evidence
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture
from tests.host.pools import same

pytestmark = pytest.mark.usefixtures("nothing_left")


@zef_function
def count(n, crash_at=-1):
    """A mark of the worker, how many calls it has had, and the input."""
    import os
    import signal

    state = globals().setdefault("state", [os.urandom(8).hex(), 0])
    state[1] += 1
    if n == crash_at:
        os.kill(os.getpid(), signal.SIGSEGV)
    return state[0], state[1], n


@zef_function
def behave(n, how):
    import time

    import numpy

    if how == "raise":
        raise ValueError(n)
    if how == "hang":
        time.sleep(60)
    if how == "lock":
        import threading

        return threading.Lock()
    if how == "print":
        print("n", n)
    if how == "large":
        return numpy.full(100_000, n)
    if how == "now":
        return (FX.Now() | run) > 0
    if how == "big":
        return n * 2**70
    if how == "effect":
        return FX.Now()
    return n


@pytest.fixture
def sizes(monkeypatch):
    """How many calls the batches had that were sent."""
    found = []
    original = registry.batch

    def batch(process, definition, rows, deadline_s):
        found.append(len(rows))
        return original(process, definition, rows, deadline_s)

    monkeypatch.setattr(registry, "batch", batch)
    return found


def test_short_calls_travel_many_at_a_time(sizes):
    with Pool(2) as pool:
        assert pool.map(same, range(20_000)) == list(range(20_000))
    assert len(sizes) < 1000
    assert max(sizes) > 100


def test_crash_in_a_batch_loses_its_own_call_and_every_other_call_is_run_once(sizes):
    crashes = [777, 778, 1500, 2999]
    with Pool(2) as pool:
        pool.map(same, range(2000))  # batches have grown
        found = pool.map(count, range(3000), [n if n in crashes else -1 for n in range(3000)], on_error="return")
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, WorkerCrash)] == crashes
    assert all(found[n].reason is Reason.SIGNAL for n in crashes)
    assert all(outcome[2] == n for n, outcome in enumerate(found) if n not in crashes)
    calls = defaultdict(list)
    for outcome in found:
        if not isinstance(outcome, WorkerCrash):
            calls[outcome[0]].append(outcome[1])
    for made in calls.values():  # nothing that a worker did was lost, or its numbers would have gaps
        assert sorted(made) == list(range(1, len(made) + 1))
    assert max(sizes) > 1


def test_crash_in_a_batch_is_told_with_its_own_command():
    with Pool(1) as pool:
        pool.map(count, range(500), [-1] * 500)
        alone = pool.outcome(count(3, 3))
        (among_others,) = [one for one in pool.map(count, range(500), [3] * 500, on_error="return") if isinstance(one, WorkerCrash)]
    assert among_others.evidence.command == alone.evidence.command
    assert among_others.evidence.plugin == alone.evidence.plugin


@pytest.mark.parametrize("how", ["raise", "lock", "print", "large", "now", "big", "effect"])
def test_call_that_does_more_than_compute_has_its_own_outcome_among_plain_ones(how, sizes, capfd):
    hows = [how if n in (400, 401, 900) else "plain" for n in range(1000)]
    with Pool(2) as pool:
        pool.map(behave, range(2000), ["plain"] * 2000)
        sizes.clear()
        found = pool.map(behave, range(1000), hows, on_error="return")
    assert [outcome for outcome, one in zip(found, hows, strict=True) if one == "plain"] == [
        n for n, one in enumerate(hows) if one == "plain"
    ]
    special = [found[n] for n in (400, 401, 900)]
    if how in ("raise", "lock"):
        assert [error.type_name for error in special] == [{"raise": "ValueError", "lock": "EncodeError"}[how]] * 3
    elif how == "print":
        assert special == [400, 401, 900]
        assert sorted(capfd.readouterr().out.split()) == sorted(["n", "400", "n", "401", "n", "900"])
    elif how == "large":
        assert [(len(one), int(one[0])) for one in special] == [(100_000, 400), (100_000, 401), (100_000, 900)]
    elif how == "now":
        assert special == [True] * 3
    elif how == "effect":
        assert all(one > 0 for one in special)
    else:
        assert special == [400 * 2**70, 401 * 2**70, 900 * 2**70]


def test_slow_call_meets_its_own_deadline_and_those_behind_it_are_answered():
    hows = ["hang" if n == 500 else "plain" for n in range(1000)]
    with Pool(2) as pool:
        pool.map(behave, range(2000), ["plain"] * 2000)
        found = pool.map(behave, range(1000), hows, on_error="return", deadline_s=0.5)
    assert [n for n, outcome in enumerate(found) if outcome != n] == [500]
    assert found[500].reason is Reason.DEADLINE


def test_worker_leaves_a_batch_when_its_time_is_over():
    @zef_function
    def slow(n):
        import time

        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return n

    worker = FX.StartWorkerProcess() | run
    results, errors = registry.batch(worker, slow.definition, [(n,) for n in range(1000)], None)
    FX.StopWorkerProcess(process=worker) | run
    assert errors == []
    assert results == list(range(len(results)))
    assert 1 <= len(results) < 100


def test_argument_that_cannot_travel_fails_its_own_call_in_the_middle_of_many():
    inputs = [threading.Lock() if n == 600 else n for n in range(1000)]
    seen = []
    with Pool(2) as pool:
        pool.map(same, range(2000))
        with pytest.raises(EncodeError):
            seen.extend(pool.imap(same, inputs))
        assert pool.map(same, range(10)) == list(range(10))
    assert seen == list(range(600))


def test_refused_input_is_refused_among_many_and_the_others_are_answered():
    with Pool(2, quarantine_after=1) as pool:
        pool.map(count, range(2000), [-1] * 2000)
        first = pool.map(count, range(100), [50] * 100, on_error="return")
        again = pool.map(count, range(100), [50] * 100, on_error="return")
    assert [n for n, outcome in enumerate(first) if isinstance(outcome, WorkerCrash)] == [50]
    assert [n for n, outcome in enumerate(again) if isinstance(outcome, Quarantined)] == [50]
    assert [outcome[2] for outcome in again if not isinstance(outcome, Quarantined)] == [n for n in range(100) if n != 50]


def test_recycling_counts_the_calls_of_a_batch():
    with Pool(1, recycle_after=100) as pool:
        assert pool.map(same, range(1000)) == list(range(1000))
        assert pool.started == 10


def test_audited_commands_are_sent_and_recorded_one_by_one(tmp_path, sizes):
    with audit.to_file(tmp_path / "log"), Pool(1) as pool:
        assert pool.map(behave, range(50), ["now"] * 50) == [True] * 50
    assert sizes == []
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len({record["command"] for record in records if record["event"] == "effect"}) == 50


def test_pool_closed_in_the_middle_of_a_map_ends_it():
    pool = Pool(2)
    found = pool.imap(same, range(10**9))
    assert next(found) == 0
    pool.close()
    with pytest.raises((PoolClosed, WorkerCrash)):
        for _ in found:
            pass


def test_map_that_a_fork_copies_is_over_in_the_child_and_goes_on_in_the_parent():
    with Pool(2) as pool:
        found = pool.imap(same, iter(range(10_000)))
        assert next(found) == 0
        child = os.fork()
        if child == 0:
            try:
                for _ in found:
                    pass
            except PoolClosed:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert list(found) == list(range(1, 10_000))


@zef_function
def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


def test_results_as_deep_as_values_may_be_come_back_from_a_batch():
    with Pool(1) as pool:
        results = pool.map(nested, [1] * 40 + [200] * 40)
        assert results[-1] == pool.run(nested(200))
        assert pool.started == 1


def test_crash_with_an_argument_too_deep_for_a_single_call_can_be_told():
    deep = (1,)
    for _ in range(196):
        deep = [deep]
    with pytest.raises(EncodeError):
        values.pack(nested(deep))
    batch = batching.Batch(nested.definition, [[deep]], 1.0)  # a level less deep than the call
    assert batch.settle(None) is batch.packed
    quarantine = Quarantine(1)
    quarantine.add(nested(deep), WorkerCrash(Reason.EXITED, "", Evidence()))
    assert quarantine.listed == []
