"""The workers of a pool: they end by deadlines, signals, age, growth and idleness, and are replaced while that can help."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import signal
import time

import pytest

from fxcell import Limits, Policy, Pool, PoolUnavailable, Quarantined, Reason, WorkerCrash
from fxcell.host import registry, templates
from fxcell.host.pool import breaker, workers
from tests.host.pools import add, dwell, misbehave
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_deadline_ends_one_command_and_the_next_is_answered():
    with Pool(1, deadline_s=0.3) as pool:
        assert pool.outcome(misbehave("hang")).reason is Reason.DEADLINE
        assert pool.run(add(1, 2), deadline_s=30) == 3


def test_worker_stopped_from_outside_is_replaced_after_its_deadline():
    with Pool(1, deadline_s=0.5, min_workers=1) as pool:
        (worker,) = registry.list_living()
        os.kill(worker["pid"], signal.SIGSTOP)
        (child,) = workers.processes.children_of(worker["pid"])
        os.kill(child, signal.SIGSTOP)
        assert pool.outcome(add(1, 2)).reason is Reason.DEADLINE
        assert pool.run(add(1, 2), deadline_s=30) == 3


def test_worker_killed_while_idle_is_replaced_and_no_command_hears_of_it():
    with Pool(1, min_workers=1) as pool:
        (worker,) = registry.list_living()
        (child,) = workers.processes.children_of(worker["pid"])
        session = registry.session_of(worker["process"])
        os.kill(child, signal.SIGKILL)
        assert session._handles.gone_within(10)
        assert pool.run(add(1, 2)) == 3
        assert pool.started == 2


def test_input_that_crashes_three_times_is_refused_and_named_and_others_are_not():
    with Pool(1) as pool:
        crashes = [pool.outcome(misbehave("crash", 7)) for _ in range(3)]
        assert [crash.reason for crash in crashes] == [Reason.SIGNAL] * 3
        with pytest.raises(Quarantined, match="has crashed 3 workers") as caught:
            pool.run(misbehave("crash", 7))
        assert pool.quarantine.listed == [caught.value.digest]
        assert pool.started == 3
        assert isinstance(pool.outcome(misbehave("crash", 8)), WorkerCrash)
        pool.quarantine.release(caught.value.digest)
        assert isinstance(pool.outcome(misbehave("crash", 7)), WorkerCrash)


def test_fresh_gives_each_command_a_worker_of_its_own():
    with Pool(1, fresh=True) as pool:
        assert pool.map(misbehave, ["ok"] * 4, range(4)) == [0, 1, 2, 3]
        assert pool.started == 4


def test_worker_is_replaced_after_so_many_commands_or_so_much_growth():
    with Pool(1, recycle_after=3) as pool:
        pool.map(add, range(7), range(7))
        assert pool.started == 3
    with Pool(1, recycle_growth_bytes=8 << 20) as pool:
        for _ in range(33):
            pool.run(misbehave("grow", 1 << 20))
        assert pool.started >= 2


def test_idle_workers_over_the_minimum_end():
    with Pool(4, min_workers=3, idle_s=0.1) as pool:
        waiting = [pool.submit(dwell(n)) for n in range(8)]
        concurrent.futures.wait(waiting, timeout=30)
        assert pool.started == 4
        end = time.monotonic() + 30
        while pool.workers > 3:
            assert time.monotonic() < end, "the fourth worker never ended"
            time.sleep(0.05)
        assert pool.run(add(1, 2)) == 3


def test_worker_stopped_while_it_was_idle_is_replaced_before_it_gets_a_command(monkeypatch):
    monkeypatch.setattr(workers, "_HANG_LOOK_S", 0.0)
    with Pool(1, min_workers=1) as pool:
        (worker,) = registry.list_living()
        (child,) = workers.processes.children_of(worker["pid"])
        os.kill(child, signal.SIGSTOP)
        end = time.monotonic() + 30
        while workers.processes.state_of(child) != "T":
            assert time.monotonic() < end, "the worker never stopped"
        assert pool.run(add(1, 2)) == 3
        assert pool.started == 2


def test_starts_that_fail_are_tried_after_pauses_and_then_refused_at_once(monkeypatch):
    starts = []

    def fail(_policy):
        starts.append(time.monotonic())
        raise WorkerCrash(Reason.START_FAILED, "nothing starts here", None)

    monkeypatch.setattr(workers.registry, "start", fail)
    with Pool(1) as pool:
        with pytest.raises(PoolUnavailable, match="5 starts of a worker failed"):
            pool.run(add(1, 2))
        with pytest.raises(PoolUnavailable):
            pool.run(add(1, 2))
        assert len(starts) == breaker.OPEN_AFTER
        pauses = [after - before for before, after in itertools.pairwise(starts)]
        assert pauses == sorted(pauses)
        assert pauses[0] >= breaker.FIRST_PAUSE_S


def test_pool_that_nobody_holds_ends_its_workers():
    pool = Pool(1)
    assert pool.run(add(1, 2)) == 3
    (worker,) = registry.list_living()
    del pool
    gc.collect()
    end = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker['pid']}"):
        assert time.monotonic() < end, "the worker of the abandoned pool lives on"
        time.sleep(0.01)


def test_quarantine_concerns_only_the_code_of_what_it_refuses():
    with Pool(1, quarantine_after=1) as pool:
        pool.outcome(misbehave("crash", 1))
        assert pool.quarantine.concerns(misbehave.definition.digest)
        assert not pool.quarantine.concerns(add.definition.digest)
        pool.quarantine.release(pool.quarantine.listed[0])
        assert not pool.quarantine.concerns(misbehave.definition.digest)


def test_policy_holds_in_every_worker_of_the_pool():
    policy = Policy(name="two", limits=Limits(wall_s=0.4))
    with Pool(1, policy=policy) as pool:
        assert pool.outcome(misbehave("hang")).reason is Reason.DEADLINE
    templates.close(policy)
