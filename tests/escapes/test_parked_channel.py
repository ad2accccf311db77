"""A worker that keeps its own channel open beyond its death: by its end of it, on the way in a message never finished."""

import os
import time

import pytest

from fxcell import *
from fxcell.host import registry


@zef_function
def die(how, park):
    import array
    import os
    import signal
    import socket

    import fxcell

    if park:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [3]))]
        fxcell.run.channel.socket.sendmsg([b"F"], rights)  # the first byte of a frame
    if how == "exit":
        os._exit(0)
    if how == "fault":
        import faulthandler

        faulthandler._read_null()
    if how == "denied":
        os.setsid()
    while True:
        signal.getsignal(1)


@pytest.fixture
def worker():
    process = FX.StartWorkerProcess() | run
    yield process
    FX.StopWorkerProcess(process=process) | run


@pytest.mark.parametrize("park", [False, True], ids=["control", "parked"])
@pytest.mark.parametrize(("how", "reason"), [("exit", Reason.EXITED), ("fault", Reason.SIGNAL)])
def test_death_behind_a_parked_channel_is_told_as_what_it_was(worker, how, reason, park):
    outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=die(how, park), deadline_s=50.0))
    assert isinstance(outcome, WorkerCrash)
    assert outcome.reason is reason
    assert outcome.evidence.resources.wall_s < 40  # far from the deadline


def test_stop_does_not_wait_for_the_deadline_of_a_worker_behind_a_parked_channel(worker):
    began = time.monotonic()
    future = run.submit(FX.SendCommandToWorkerProcess(process=worker, command=die("loop", True), deadline_s=55.0))
    session = registry.session_of(worker)
    while not session.channel._fds and not future.done():
        os.sched_yield()
    FX.StopWorkerProcess(process=worker) | run
    crash = future.exception(timeout=30)
    assert isinstance(crash, WorkerCrash)
    assert crash.reason is Reason.STOPPED
    assert time.monotonic() - began < 40
