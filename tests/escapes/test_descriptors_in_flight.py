"""Descriptors on their way through sockets are counted for the whole user (unix(7), ETOOMANYREFS).

A worker that leaves many there must not keep others from starting.
"""

import time

import pytest

from fxcell import FX, PluginError, Reason, WorkerCrash, load_policy, run, zef_function
from tests.escapes.conftest import add


@zef_function
def leave_on_their_way(messages, seconds):
    """While the host performs an effect, and so reads nothing, send descriptors that nobody takes."""
    import threading
    import time

    import fxcell
    from fxcell import FX
    from fxcell.sandbox import wire

    message = wire.Message.new_message()
    message.init("output").stream = 1
    refused = []

    def push():
        time.sleep(0.2)
        for _ in range(messages):
            try:
                fxcell.run.channel.send(message, [0] * 200)
            except OSError as error:
                refused.append(error.errno)
                return

    thread = threading.Thread(target=push)
    thread.start()
    FX.Sleep(seconds=seconds) | fxcell.run
    thread.join()
    return refused


@pytest.mark.parametrize("policy", ["compute", "strict"])
def test_workers_start_while_another_has_hundreds_on_their_way(arena, policy):
    hostile = FX.StartWorkerProcess() | run
    busy = run.submit(FX.SendCommandToWorkerProcess(process=hostile, command=leave_on_their_way(5, 3.0)))
    time.sleep(0.6)
    for _ in range(4):
        started = time.monotonic()
        worker = FX.StartWorkerProcess(policy=policy) | run
        assert FX.SendCommandToWorkerProcess(process=worker, command=add(1, 1)) | run == 2
        FX.StopWorkerProcess(process=worker) | run
        assert time.monotonic() - started < 3
    assert not busy.done()
    outcome = busy.exception(10)
    assert isinstance(outcome, WorkerCrash | PluginError), outcome
    assert not isinstance(outcome, WorkerCrash) or outcome.reason is Reason.PROTOCOL_VIOLATION
    FX.StopWorkerProcess(process=hostile) | run


@zef_function
def limit_on_open_files():
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.mark.parametrize("policy", ["strict", "compute", "trusted"])
def test_limit_on_open_files_is_the_policys_all_the_same(arena, policy):
    most = load_policy(policy).limits.open_files
    assert arena.attack(limit_on_open_files(), policy) == (most, most)
