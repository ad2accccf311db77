"""1,000 rounds of start, crash and respawn leave no process, descriptor, mount, file or cgroup behind."""

import time

import pytest

from fxcell import FX, WorkerCrash, run, zef_function
from tests import leaks

ROUNDS = 1000


@zef_function
def crash(how):
    import os
    import signal

    if how == 0:
        os._exit(1)
    if how == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == 2:
        os.write(3, b"no frame at all, and no magic either")
    if how == 3:
        os.abort()
    return "alive"


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["compute"])
def test_a_thousand_crashes_and_respawns_leave_nothing(policy):
    worker = FX.StartWorkerProcess(policy=policy) | run  # the template stays, and is not counted
    FX.StopWorkerProcess(process=worker) | run
    started = time.monotonic()
    with leaks.assert_nothing_left():
        for number in range(ROUNDS):
            worker = FX.StartWorkerProcess(policy=policy) | run
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=crash(number % 5)))
            if number % 5 == 4:
                assert outcome == "alive"
                FX.StopWorkerProcess(process=worker) | run
            else:
                assert isinstance(outcome, WorkerCrash), outcome
    seconds = time.monotonic() - started
    print(f"\n{ROUNDS} rounds in {seconds:.1f} s, {seconds / ROUNDS * 1000:.1f} ms each")


@pytest.mark.slow
def test_crashes_do_not_make_the_host_grow():
    import os
    import resource

    def rounds(count):
        for _ in range(count):
            worker = FX.StartWorkerProcess(policy="compute") | run
            run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=crash(0)))

    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    rounds(100)
    before, open_before = resident(), len(os.listdir("/proc/self/fd"))
    rounds(100)
    assert len(os.listdir("/proc/self/fd")) <= open_before
    assert resident() - before < 8 * 2**20


def test_commands_to_a_crashed_worker_say_that_it_is_gone_and_leave_nothing():
    worker = FX.StartWorkerProcess(policy="compute") | run
    run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=crash(0)))
    from fxcell import WorkerStopped

    with leaks.assert_nothing_left():
        for _ in range(10):
            with pytest.raises(WorkerStopped, match="gone"):
                FX.SendCommandToWorkerProcess(process=worker, command=crash(4)) | run
    FX.StopWorkerProcess(process=worker) | run
