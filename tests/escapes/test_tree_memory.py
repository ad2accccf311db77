"""Line 22: two processes, each below the memory limit, together above it. Line 23: System V and other shared memory."""

import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from fxcell.host import cgroups
from tests.escapes.conftest import compute

PAIR = compute(
    name="two processes, 128 MiB",
    allow=frozenset({"threads", "load_libraries", "processes"}),
    limits={"processes": 3, "memory_bytes": 128 * 2**20},
)


@zef_function
def share_the_work(mebibytes):
    """Parent and child each take this much; answer how the child ended."""
    import os

    child = os.fork()
    if child == 0:
        block = bytearray(b"x") * (mebibytes << 20)
        os._exit(0 if block[-1] else 1)
    block = bytearray(b"x") * (mebibytes << 20)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), len(block)


@zef_function
def keep_two(mebibytes):
    import os
    import time

    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            block = bytearray(b"x") * (mebibytes << 20)
            time.sleep(1)
            os._exit(block[0] & 0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@zef_function
def shared_segment():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return libc.shmget(0, 1 << 20, 0o1600), ctypes.get_errno()


@pytest.mark.skipif("memory" not in cgroups.places(), reason="needs a memory cgroup that this process may use")
def test_children_together_above_the_limit_are_killed(arena):
    outcome = arena.attack(keep_two(90), PAIR)
    if isinstance(outcome, WorkerCrash):  # the kernel chose the worker itself
        assert outcome.reason is Reason.OUT_OF_MEMORY
    else:  # or one of its children, which is the plugin's own matter
        assert -9 in outcome
    assert arena.control(share_the_work(20)) == (0, 20 << 20)


@pytest.mark.skipif("memory" in cgroups.places(), reason="the memory of the whole tree is counted here")
def test_without_a_memory_cgroup_each_process_has_the_limit(arena):
    outcome = arena.attack(share_the_work(200), PAIR)
    assert isinstance(outcome, WorkerCrash | PluginError) or outcome[0] != 0, outcome


def test_system_v_segment_is_not_there(arena):
    assert arena.attack(shared_segment()) == (-1, 38)  # ENOSYS
    assert arena.control(shared_segment())[0] >= 0
