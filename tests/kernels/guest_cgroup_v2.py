"""cgroup v2 as hosts meet it: alone in a delegated group, in company, without a controller, without permission.

Each host runs in a process and a group of its own below the group that this test process may divide, says where it ended
up and what limits its workers, and has one worker use too much memory.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fxcell import FX, Policy, WorkerCrash, WorkerStopped, run, zef_function
from fxcell.host import cgroups
from fxcell.sandbox.kernel import cgroup
from tests import leaks

HOST = """
import json, os, subprocess, sys
from fxcell import *
from fxcell.host import cgroups

def own():
    return next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))

@zef_function
def hoard():
    kept = []
    while True:
        kept.append(b"x" * 2**20)

before = own()
small = Policy(name="small", limits=Limits(memory_bytes=64 * 2**20, start_s=60.0))
worker = FX.StartWorkerProcess(policy=small) | run
outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=hoard()))
child = subprocess.run([sys.executable, "-c", sys.argv[1], ""], capture_output=True, text=True) if sys.argv[1] else None
print(json.dumps({
    "before": before, "after": own(), "pid": os.getpid(), "reason": outcome.reason.value, "words": str(outcome),
    "places": sorted(cgroups.places()), "missing": cgroups.missing(), "peak": outcome.evidence.resources.peak_bytes,
    "child": json.loads(child.stdout) if child else None,
}))
"""


@pytest.fixture
def tree():
    """The group whose children this process may make."""
    return cgroups.places()["memory"].folder


@contextlib.contextmanager
def group(path, hand_down=""):
    """A group for one host; what is left in it is ended and removed, from the leaves up."""
    os.mkdir(path)
    try:
        if hand_down:
            write(f"{path}/cgroup.subtree_control", hand_down)
        yield path
    finally:
        os.chmod(path, 0o755)
        write(f"{path}/cgroup.kill", "1")
        for folder, _, _ in os.walk(path, topdown=False):
            end = time.monotonic() + 10
            while True:
                try:
                    os.rmdir(folder)
                    break
                except OSError:
                    assert time.monotonic() < end, folder
                    time.sleep(0.01)


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def entering(path):
    """For preexec_fn: the only way to be in a group from the start. What runs between fork and exec is one write."""
    return lambda: write(f"{path}/cgroup.procs", "0")


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read().split()


def host_in(path, child=""):
    """Run HOST in a process that is in this group from its start; what it says."""
    done = subprocess.run(
        [sys.executable, "-c", HOST, child], capture_output=True, text=True,
        preexec_fn=entering(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["reason"] == "out_of_memory"
    assert said["before"] == (path.removeprefix("/sys/fs/cgroup") or "/")
    return said


def test_host_alone_in_its_group_goes_to_a_leaf_and_limits_by_cgroup(tree):
    with group(f"{tree}/alone") as own:
        said = host_in(own)
        assert said["after"] == f"{said['before']}/fxcell-host-{said['pid']}"
        assert said["places"] == ["memory", "pids"]
        assert said["missing"] == ""
        assert "memory cgroup v2" in said["words"]
        assert said["peak"] > 32 * 2**20
        assert os.listdir(own).count(f"fxcell-host-{said['pid']}") == 1  # empty now: a group cannot remove itself
        where = {"memory": cgroup.Place("memory", 2, own)}
        cgroups.sweep(where, older_than_s=0)
        assert not [name for name in os.listdir(own) if name.startswith("fxcell")]


def test_host_started_by_a_host_divides_the_same_group(tree):
    with group(f"{tree}/family") as own:
        said = host_in(own, child=HOST)
        child = said["child"]
        assert child["before"] == child["after"] == said["after"]
        assert child["places"] == ["memory", "pids"]
        assert "memory cgroup v2" in child["words"]


def test_host_in_company_stays_where_it_is_and_says_what_to_do(tree):
    with group(f"{tree}/company") as own:
        neighbour = subprocess.Popen(["sleep", "600"], preexec_fn=entering(own))  # noqa: PLW1509
        said = host_in(own)
        neighbour.kill()
        neighbour.wait()
        assert said["after"] == said["before"]
        assert read(f"{own}/cgroup.subtree_control") == []
        assert said["places"] == []
        assert "holds other processes too" in said["missing"]
        assert "systemd-run " in said["missing"]
        assert "-p Delegate=yes" in said["missing"]
        assert "RLIMIT_DATA" in said["words"]


def test_controller_that_was_not_handed_down_is_named_and_the_other_used(tree):
    with group(f"{tree}/half", hand_down="+pids") as parent, group(f"{parent}/own") as own:
        said = host_in(own)
        assert said["places"] == ["pids"]
        assert said["missing"].startswith(f"memory: the memory controller is not delegated to {own}\n")
        assert "RLIMIT_DATA" in said["words"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every group")
def test_group_that_is_not_the_users_is_left_alone(tree):
    with group(f"{tree}/closed") as own:
        os.chmod(f"{own}/cgroup.subtree_control", 0o444)
        os.chmod(own, 0o555)
        said = host_in(own)
        assert said["after"] == said["before"]
        assert said["places"] == []
        assert "cannot be divided: Permission denied" in said["missing"]
        assert "RLIMIT_DATA" in said["words"]


@pytest.mark.needs_root
def test_root_divides_under_systemd_only_what_systemd_delegated(tree):
    os.makedirs("/run/systemd/system")
    try:
        with group(f"{tree}/service") as own:
            said = host_in(own)
            assert said["after"] == said["before"]
            assert "is not delegated to it" in said["missing"]
            os.setxattr(own, "trusted.delegate", b"1")
            said = host_in(own)
            assert said["after"] != said["before"]
            assert "memory cgroup v2" in said["words"]
    finally:
        os.removedirs("/run/systemd/system")


@pytest.mark.needs_root
def test_host_in_the_root_of_all_groups_stays_there_and_limits_by_cgroup():
    said = host_in("/sys/fs/cgroup")
    assert said["after"] == said["before"] == "/"
    assert said["places"] == ["memory", "pids"]
    assert "memory cgroup v2" in said["words"]


def test_group_counts_refused_tasks_and_ends_its_members_when_it_is_removed():
    forks = "import os, time\ntry:\n while os.fork(): pass\nexcept OSError: print('refused', flush=True)\ntime.sleep(600)"
    made = cgroup.Group(cgroups.places(), f"fxcell-{os.getpid()}-test", memory_bytes=64 * 2**20, tasks=4)
    (path,) = set(made._paths.values())
    process = subprocess.Popen(
        [sys.executable, "-c", forks], stdout=subprocess.PIPE, text=True, preexec_fn=entering(path)  # noqa: PLW1509
    )
    assert process.stdout.readline() == "refused\n"
    assert len(made.members()) == 4
    assert made.refused_tasks() >= 1
    assert made.peak_bytes() > 0
    assert made.oom_kills() == 0
    assert read(f"{path}/memory.max") == [str(64 * 2**20)]
    assert made.remove()
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    assert not os.path.exists(path)


@zef_function
def leave_a_daemon_behind():
    import os
    import time

    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
    os.wait()
    return os.getpid()


def test_daemon_of_a_trusted_worker_dies_with_the_group_when_its_supervisor_was_killed():
    policy = Policy(name="trusted daemons", isolation="trusted")
    FX.StopWorkerProcess(process=FX.StartWorkerProcess(policy=policy) | run) | run
    with leaks.assert_nothing_left():
        worker = FX.StartWorkerProcess(policy=policy) | run
        assert FX.SendCommandToWorkerProcess(process=worker, command=leave_a_daemon_behind()) | run > 0
        supervisor = next(entry["pid"] for entry in FX.ListWorkerProcesses() | run if entry["process"] == worker)
        worker_process = psutil.Process(supervisor).children()[0]
        psutil.Process(supervisor).kill()
        worker_process.wait(20)  # it dies with its supervisor; the daemon does not
        # The daemon holds a copy of the worker's channel, so its end alone may tell the host nothing: hence the deadline.
        outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=1, deadline_s=2.0))
        assert isinstance(outcome, WorkerCrash | WorkerStopped)
        FX.StopWorkerProcess(process=worker) | run
