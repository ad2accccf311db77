"""Descriptors on their way through sockets are counted for the whole user (unix(7), ETOOMANYREFS).

A worker that leaves many there must not keep others from starting.
"""

import threading
import time

import pytest

from fxcell import FX, PluginError, Reason, WorkerCrash, load_policy, run, zef_function
from tests.escapes.conftest import add
from tests.host.pools import acts

POLICY = load_policy("compute").replaced(name="on their way", effects={"Step": True})


@zef_function
def leave_on_their_way(messages):
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
    FX.Step(item="on their way") | fxcell.run
    thread.join()
    return refused


@pytest.mark.parametrize("policy", ["compute", "strict"])
def test_workers_start_while_another_has_hundreds_on_their_way(arena, monkeypatch, policy):
    reading_nothing, go = threading.Event(), threading.Event()
    monkeypatch.setitem(acts, "on their way", lambda _context: (reading_nothing.set(), go.wait(60))[0])
    hostile = FX.StartWorkerProcess(policy=POLICY) | run
    busy = run.submit(FX.SendCommandToWorkerProcess(process=hostile, command=leave_on_their_way(5)))
    try:
        assert reading_nothing.wait(60)
        time.sleep(0.6)  # it begins to send after 0.2 s
        for _ in range(4):
            worker = FX.StartWorkerProcess(policy=policy) | run
            assert FX.SendCommandToWorkerProcess(process=worker, command=add(1, 1)) | run == 2
            FX.StopWorkerProcess(process=worker) | run
        assert not busy.done()
    finally:
        go.set()
    outcome = busy.exception(30)
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
