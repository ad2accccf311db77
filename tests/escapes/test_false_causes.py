"""Plugins that try to be given another cause of death than theirs: the first cause wins, and what is not known is not said."""

import pytest

from fxcell import FX, Reason, run, zef_function
from fxcell.host import cgroups
from tests.escapes.conftest import compute

needs_memory_cgroup = pytest.mark.skipif(
    "memory" not in cgroups.places(), reason="needs a memory cgroup that this process may use"
)


@zef_function
def flood_when_asked_for_the_stack(descriptor, mebibytes):
    import os
    import signal

    def flood(*_):
        for _ in range(16 * mebibytes):
            os.write(descriptor, b"A" * 65536)

    signal.signal(signal.SIGUSR2, flood)
    while True:
        pass


@zef_function
def flood_at_once(descriptor, mebibytes):
    import os

    for _ in range(16 * mebibytes):
        os.write(descriptor, b"A" * 65536)


@pytest.mark.parametrize("descriptor", [5, 1], ids=["stack", "stdout"])
def test_flood_that_the_deadline_sets_off_is_still_the_deadline(arena, descriptor):
    crash = arena.attack(flood_when_asked_for_the_stack(descriptor, 3), deadline_s=0.5)
    assert crash.reason is Reason.DEADLINE


@pytest.mark.parametrize("descriptor", [5, 1], ids=["stack", "stdout"])
def test_control_the_same_flood_before_the_deadline_is_output_limit(arena, descriptor):
    assert arena.attack(flood_at_once(descriptor, 3)).reason is Reason.OUTPUT_LIMIT


@zef_function
def raise_memory_error():
    raise MemoryError


@zef_function
def use_memory():
    kept = []
    while True:
        kept.append(bytearray(b"x" * 2**20))


def test_memory_error_without_need_says_how_little_was_held(arena):
    crash = arena.attack(raise_memory_error())
    assert crash.reason is Reason.OUT_OF_MEMORY
    assert "the plugin raised MemoryError; it held " in crash.detail
    held_mib = float(crash.detail.partition("it held ")[2].partition(" MiB")[0])
    assert held_mib < 200  # of 512
    assert "killed none of its processes" in crash.detail or "nothing counts here" in crash.detail


@zef_function
def lose_a_child_to_memory():
    import os

    child = os.fork()
    if child == 0:
        kept = []
        while True:
            kept.append(bytearray(b"x" * 2**20))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@zef_function
def kill_oneself():
    import os

    os.kill(os.getpid(), 9)


def forking():
    return compute(
        allow=frozenset({"threads", "load_libraries", "processes"}),
        limits={"processes": 4, "memory_bytes": 128 << 20},
    )


@needs_memory_cgroup
def test_child_killed_for_memory_in_an_earlier_command_does_not_explain_this_end():
    worker = FX.StartWorkerProcess(policy=forking()) | run
    killed = FX.SendCommandToWorkerProcess(process=worker, command=lose_a_child_to_memory()) | run
    assert killed == -9
    crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=kill_oneself()))
    assert crash.reason is Reason.KILLED_EXTERNALLY


@needs_memory_cgroup
def test_control_worker_killed_for_memory_in_a_later_command_is_out_of_memory():
    worker = FX.StartWorkerProcess(policy=forking()) | run
    FX.SendCommandToWorkerProcess(process=worker, command=lose_a_child_to_memory()) | run
    crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=use_memory()))
    assert crash.reason is Reason.OUT_OF_MEMORY
