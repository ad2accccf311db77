"""The workers of a pool: they end by deadlines, signals, age, growth and idleness, and are replaced while that can help."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import select
import signal
import time
import weakref

import pytest

from fxcell import Limits, OutOfDescriptors, Policy, Pool, PoolUnavailable, Quarantined, Reason, WorkerCrash
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


def test_tight_deadlines_of_callers_do_not_have_an_input_refused_and_the_pools_own_do():
    with Pool(1, deadline_s=0.4) as pool:
        for _ in range(4):
            assert pool.outcome(misbehave("hang"), 0.1).reason is Reason.DEADLINE
        assert pool.quarantine.listed == []
        for _ in range(3):
            assert pool.outcome(misbehave("hang")).reason is Reason.DEADLINE
        assert len(pool.quarantine.listed) == 1


@pytest.mark.parametrize("error", [OutOfDescriptors(64, 64), PoolUnavailable("no start for now")], ids=["descriptors", "breaker"])
def test_command_waits_for_a_worker_that_lives_where_no_more_can_be_started(monkeypatch, error):
    with Pool(4, min_workers=1, wait_s=30) as pool:

        def refuse(_policy):
            raise error

        monkeypatch.setattr(registry, "start", refuse)
        futures = [pool.submit(dwell(n)) for n in range(40)]
        assert [future.result(30) for future in futures] == list(range(40))
        assert pool.map(dwell.function, range(40)) == list(range(40))
        assert pool.workers == 1
        (worker,) = registry.list_living()
        session = registry.session_of(worker["process"])
        os.kill(worker["pid"], signal.SIGKILL)
        assert session._handles.gone_within(10)
        select.select([session._handles.pidfd], [], [], 10)
        with pytest.raises(type(error)):  # now there is none to wait for
            pool.run(dwell(1))
        assert pool.workers == 0


@pytest.mark.parametrize(
    "place", [(workers.Kept, "has_grown"), (workers.Workers, "_is_worth_keeping"), (workers.Workers, "_started")]
)
def test_interrupt_between_any_two_steps_loses_a_pool_of_one_neither_its_worker_nor_its_turn(monkeypatch, place):
    with Pool(1, wait_s=30) as pool:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(*place, interrupted)
            pool.run(add(1, 2))
        assert pool.run(add(1, 2)) == 3
        assert pool.workers == 1


def interrupted(*_):
    raise KeyboardInterrupt


def test_what_was_lent_to_a_frame_that_is_gone_is_free_again():
    with Pool(1, min_workers=1, wait_s=30) as pool:
        held = pool._workers
        lease = workers.Lease()
        worker = held._take(lease, time.monotonic() + 10)
        stale = workers.Lease()
        held._waiting.append(weakref.ref(stale))
        del stale
        waiting = pool.submit(add(1, 2))
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(0.2)  # the control: it is lent
        del lease
        assert waiting.result(30) == 3
        assert pool.workers == 1
        assert not worker.session.lives


def test_template_whose_popen_lock_was_left_locked_ends_all_the_same():
    policy = Policy(name="locked", limits=Limits(wall_s=7))
    with Pool(1, policy=policy) as pool:
        assert pool.run(add(1, 2)) == 3
        template = templates.template_for(policy)
        templates.release(template)
    template.process._waitpid_lock.acquire()  # an interrupt between Popen's acquire and its try
    assert template.alive
    began = time.monotonic()
    templates.close(policy)
    assert time.monotonic() - began < 8
    assert not template.alive
    template.process._waitpid_lock.release()
    assert template.process.wait(10) == 0


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
