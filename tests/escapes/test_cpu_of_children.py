"""CPU time of forked processes: counted whichever thread forked them, and whether anybody waits for them or not."""

import time

import pytest

from fxcell import FX, Reason, WorkerCrash, run, zef_function
from fxcell.host import registry
from fxcell.sandbox.kernel import cgroup
from tests.escapes.conftest import compute

FAMILY = compute(
    name="short family",
    allow=frozenset({"threads", "load_libraries", "processes"}),
    limits={"processes": 4, "cpu_s": 1.0, "wall_s": 30.0},
)


@zef_function
def burn_in_a_child(in_thread, seconds):
    import os
    import threading
    import time

    def fork_and_stay():
        child = os.fork()
        if child == 0:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
            os._exit(0)
        os.waitpid(child, 0)

    if in_thread:
        thread = threading.Thread(target=fork_and_stay)
        thread.start()
        thread.join()
    else:
        fork_and_stay()
    return "not noticed"


@zef_function
def leave_a_burning_child_of_a_thread():
    import os
    import threading

    forked = threading.Event()

    def fork_and_stay():
        child = os.fork()
        if child == 0:
            while True:
                pass
        forked.set()
        os.waitpid(child, 0)

    threading.Thread(target=fork_and_stay, daemon=True).start()
    return forked.wait(10)


@zef_function
def burn_in_short_children(ignored, seconds):
    """Children of 0.2 s CPU, one after the other; a parent that ignores SIGCHLD is not charged for them."""
    import contextlib
    import os
    import resource
    import signal
    import time

    # 0.2 s each: long enough to be seen by a watch that looks ten times a second.
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            start = time.process_time()
            while time.process_time() - start < 0.2:
                pass
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def is_cpu_limit(outcome):
    return isinstance(outcome, WorkerCrash) and outcome.reason is Reason.CPU_LIMIT


@pytest.mark.parametrize("in_thread", [False, True], ids=["first_thread", "second_thread"])
def test_child_that_burns_cpu_is_ended_by_the_cpu_limit_whichever_thread_forked_it(arena, in_thread):
    outcome = arena.attack(burn_in_a_child(in_thread, 25), FAMILY, deadline_s=28)
    assert is_cpu_limit(outcome), outcome
    assert arena.control(burn_in_a_child(in_thread, 0.2)) == "not noticed"


@pytest.mark.parametrize("ignored", [False, True], ids=["waited_for", "sigchld_ignored"])
def test_children_that_burn_cpu_and_end_are_counted_also_when_nobody_waits(arena, ignored):
    outcome = arena.attack(burn_in_short_children(ignored, 25), FAMILY, deadline_s=28)
    assert is_cpu_limit(outcome), outcome


def test_parent_that_ignores_sigchld_is_not_charged_by_the_kernel(arena):
    """The control: what the attack rests on."""
    assert arena.control(burn_in_short_children(ignored=False, seconds=0.3)) >= 0.2
    assert arena.control(burn_in_short_children(ignored=True, seconds=0.3)) < 0.1


def test_children_of_a_parent_that_ignores_sigchld_are_counted_without_a_cgroup(arena, monkeypatch):
    monkeypatch.setattr(cgroup.Group, "cpu_s", lambda _group: None)
    outcome = arena.attack(burn_in_short_children(ignored=True, seconds=25), FAMILY, deadline_s=28)
    assert is_cpu_limit(outcome), outcome


def test_child_of_a_second_thread_that_burns_between_commands_ends_the_worker(arena):
    worker = FX.StartWorkerProcess(policy=FAMILY) | run
    assert FX.SendCommandToWorkerProcess(process=worker, command=leave_a_burning_child_of_a_thread()) | run
    session = registry.session_of(worker)
    end = time.monotonic() + 20
    while not session.ended and time.monotonic() < end:
        time.sleep(0.05)
    assert "CPU time while no command was running" in session.ended
    FX.StopWorkerProcess(process=worker) | run
