"""Batches: many calls in one message to a worker, each still with an outcome of its own, run once, and its own deadline."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter, defaultdict
from typing import Any

import pytest

from fxcell import (
    FX,
    Effect,
    EffectFailed,
    EncodeError,
    Policy,
    Pool,
    PoolClosed,
    Quarantined,
    Reason,
    WorkerCrash,
    handles,
    run,
    zef_function,
)  # fmt: skip
from fxcell.host import audit, registry, templates
from fxcell.policies import values
from fxcell.policies.calls import Definition
from fxcell.sandbox import batches, wire
from fxcell.sandbox.area import SIZE_BYTES, HostArea, WorkerArea
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture

TOLD: Counter[int] = Counter()
BEGUN = threading.Event()


class PoolTold(Effect):
    """Counted by its number."""

    number: int


@handles(PoolTold)
def tell(effect):
    TOLD[effect.number] += 1


POOL_NESTED: list[Any] = []


class PoolNested(Effect):
    """Has the host use the pool that it is asked from."""


@handles(PoolNested)
def nest(effect):
    return POOL_NESTED[-1](effect)


class PoolBegun(Effect):
    """Says that its command has begun."""


@handles(PoolBegun)
def begin(_effect):
    BEGUN.set()


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


@zef_function
def same(value):
    return value


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


def test_effects_among_many_calls_are_each_performed_once():
    TOLD.clear()

    @zef_function
    def sometimes(n):
        if n % 7 == 0:
            FX.PoolTold(number=n) | run
        if n == 70:
            import os

            os._exit(3)
        return n

    policy = Policy(name="told", effects={"PoolTold": True})
    with Pool(2, policy=policy) as pool:
        found = pool.map(sometimes, range(1000), on_error="return")
    templates.close(policy)
    assert Counter(range(0, 1000, 7)) == TOLD
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, WorkerCrash)] == [70]


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


def test_input_is_sent_while_the_source_waits_for_its_outcome():
    BEGUN.clear()

    @zef_function
    def tell(n):
        FX.PoolBegun() | run
        return n

    def source():
        for n in range(3):
            yield n
            assert BEGUN.wait(30), "the input before was kept back"
            BEGUN.clear()

    policy = Policy(name="begun", effects={"PoolBegun": True})
    with Pool(2, policy=policy) as pool:
        assert pool.map(tell, source()) == [0, 1, 2]
    templates.close(policy)


def test_map_inside_a_handler_while_every_worker_waits_for_one_ends_when_none_gets_free():
    def nested(_effect):
        return sum(pool.map(same, range(3)))

    @zef_function
    def ask(_n):
        return FX.PoolNested() | run

    POOL_NESTED.append(nested)
    policy = Policy(name="nested", effects={"PoolNested": True})
    with Pool(2, policy=policy, wait_s=0.5) as pool:
        assert pool.map(ask, [1], on_error="return") == [3]
        found = pool.map(ask, range(2), on_error="return")
    POOL_NESTED.clear()
    templates.close(policy)
    assert len(found) == 2
    assert all(outcome == 3 or isinstance(outcome, EffectFailed) for outcome in found)


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


# --- the memory in which results are kept


def filled(*results):
    area = HostArea()
    put = WorkerArea(os.dup(area.descriptor)).begin()
    for result in results:
        assert put(result)
    return area


def test_results_are_read_back_and_only_so_many_as_there_can_be():
    area = filled(None, 1, "ä", [1, (2, 3)], 2.5)
    assert area.results(5) == [None, 1, "ä", [1, (2, 3)], 2.5]
    with pytest.raises(wire.WireError, match="5 calls of a batch are done, of 4 at most"):
        area.results(4)
    area.clear()
    assert area.results(4) == []
    area.close()


@pytest.mark.parametrize(
    "written",
    [
        (1 << 32 | 2**32 - 1, b"\xc0"), (2**32 - 1 << 32 | 1, b"\xc0"), (3 << 32 | 1, b"\xc0\xc0\xc0"), (1 << 32 | 2, b"\xc0\xc0"),
        (1 << 32 | 5, b"\xdd\xff\xff\xff\xff"), (1 << 32 | 3, b"\xc7\x01\x02"), (1 << 32, b""),
    ],
)  # fmt: skip
def test_bytes_of_a_lying_worker_are_a_wire_error(written):
    area = HostArea()
    os.pwrite(area.descriptor, written[0].to_bytes(8, "little") + written[1], 0)
    with pytest.raises(wire.WireError):
        area.results(1000)
    area.close()


def test_worker_cannot_resize_or_unseal_the_area():
    area = HostArea()
    for size in (0, SIZE_BYTES - 1, SIZE_BYTES + 1):
        with pytest.raises(PermissionError):
            os.truncate(area.descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(area.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    area.close()
    control = os.memfd_create("control", os.MFD_ALLOW_SEALING)
    os.truncate(control, 5)
    os.close(control)


def test_result_that_has_no_room_is_left_to_travel_by_itself():
    area = HostArea()
    put = WorkerArea(os.dup(area.descriptor)).begin()
    assert put("x" * (SIZE_BYTES - 100))
    assert not put("y" * 200)
    assert not put(b"z" * values.OUT_OF_BAND_BYTES)
    assert area.results(10) == ["x" * (SIZE_BYTES - 100)]
    area.close()


@zef_function
def lie(n, what):
    """Writes into the area as if more were done, or something else."""
    import gc
    import mmap

    (area,) = [one for one in gc.get_objects() if isinstance(one, mmap.mmap)] or [None]
    if n == 5 and area is not None:
        area[:8] = what
    return n


@pytest.mark.parametrize("what", [b"\xff" * 8, (900 << 32).to_bytes(8, "little"), (1 << 32 | 1).to_bytes(8, "little")])
def test_worker_that_lies_about_what_is_done_harms_only_its_own_calls(what):
    with Pool(1) as pool:
        pool.map(same, range(500))
        found = pool.map(lie, range(200), [what] * 200, on_error="return")
        assert len(found) == 200
        assert pool.run(same(7)) == 7
        assert pool.map(same, range(500)) == list(range(500))


def test_batch_for_another_worker_needs_its_area_first():
    definition = Definition("0" * 64, "nothing")
    with pytest.raises(IndexError):
        batches.pack(definition, [], 1.0)
