"""Line 30: a process that the worker left behind when it ended itself. Line 37: nobody is killed by a bare number."""

import os
import time

import psutil
import pytest

from fxcell import FX, Reason, run, zef_function
from tests import leaks
from tests.escapes.conftest import add, compute

FAMILY = compute(
    name="orphans", allow=frozenset({"threads", "load_libraries", "processes"}), limits={"processes": 4, "threads": 4}
)


@zef_function
def leave_children_and_go(how):
    import os
    import signal
    import time

    for _ in range(2):
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))
            os.setsid()
            time.sleep(3600)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@zef_function
def child_closes_and_goes_on():
    """The child keeps the worker's end of the channel; the worker goes."""
    import os
    import time

    if os.fork() == 0:
        time.sleep(3600)
    os._exit(0)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_children_of_a_worker_that_went_are_gone_with_it(arena, how):
    arena.attack(add(1, 1), FAMILY)  # its template stays, and is not counted
    with leaks.assert_nothing_left():
        crash = arena.attack(leave_children_and_go(how), FAMILY)
    assert crash.reason is (Reason.EXITED if how == "exit" else Reason.KILLED_EXTERNALLY)


def test_channel_held_open_by_a_child_does_not_keep_the_host(arena):
    started = time.monotonic()
    crash = arena.attack(child_closes_and_goes_on(), FAMILY, deadline_s=3)
    assert crash.reason in (Reason.EXITED, Reason.DEADLINE)
    assert time.monotonic() - started < 6


def test_host_signals_no_bare_process_id(arena, monkeypatch):
    def refuse(pid, number):
        raise AssertionError(f"the host sent signal {number} to the bare process id {pid}")

    worker = FX.StartWorkerProcess() | run
    pid = next(entry["pid"] for entry in FX.ListWorkerProcesses() | run if entry["process"] == worker)
    psutil.Process(pid).kill()  # it is gone, and its number free for anybody, before the host acts
    monkeypatch.setattr(os, "kill", refuse)
    FX.StopWorkerProcess(process=worker) | run
    busy = FX.StartWorkerProcess(policy=FAMILY) | run
    future = run.submit(FX.SendCommandToWorkerProcess(process=busy, command=leave_children_and_go("exit")))
    assert future.exception(10).reason is Reason.EXITED
    FX.StopWorkerProcess(process=busy) | run
