"""Lines 33, 34, 83: another program, a second time, without its environment, as another user: the policy holds in all of it.
Line 35: signals through process descriptors and queues."""

import errno
import os
import signal
import subprocess
import sys

import psutil
import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from tests.escapes.calls import make_call
from tests.escapes.conftest import compute

FAMILY = compute(
    name="family that execs",
    allow=frozenset({"threads", "load_libraries", "processes"}),
    limits={"processes": 4, "threads": 4},
)


@zef_function
def child_runs_program(path, clear):
    """Fork, change the environment, become the program; answer how the child ended."""
    import os

    if clear:
        os.environ.clear()
    child = os.fork()
    if child == 0:
        try:
            os.execve(path, [path, "-c", "pass"], dict(os.environ))
        except OSError:
            os._exit(9)
    return os.waitpid(child, 0)[1]


@zef_function
def become_another_user(way):
    import os
    import subprocess

    if way == "setuid":
        os.setuid(0)
    elif way == "setgroups":
        os.setgroups([0])
    elif way == "setresuid":
        os.setresuid(0, 0, 0)
    elif way == "sudo":
        return subprocess.run(["sudo", "-n", "true"], check=False).returncode
    else:
        return subprocess.run(["su", "-c", "true"], check=False, stdin=subprocess.DEVNULL).returncode
    return os.getuid()


@zef_function
def signal_through_descriptor(pid, number):
    import os
    import signal

    signal.pidfd_send_signal(os.pidfd_open(pid), number)
    return "sent"


@pytest.mark.parametrize("clear", [False, True], ids=["as it is", "cleared"])
@pytest.mark.parametrize("path", ["/bin/sh", sys.executable])
def test_child_that_becomes_a_program_ends_the_worker(arena, path, clear):
    crash = arena.attack(child_runs_program(path, clear), FAMILY)
    assert isinstance(crash, WorkerCrash), crash
    assert (crash.reason, crash.evidence.syscall.name) == (Reason.DENIED_SYSCALL, "execve")
    assert os.waitstatus_to_exitcode(arena.control(child_runs_program(path, clear))) in (0, 127)  # 127: a shell ran


@pytest.mark.parametrize("policy", ["compute", FAMILY], ids=["compute", "processes"])
@pytest.mark.parametrize("way", ["setuid", "setgroups", "setresuid", "sudo", "su"])
def test_becoming_another_user_is_refused(arena, policy, way):
    outcome = arena.attack(become_another_user(way), policy)
    assert isinstance(outcome, PluginError | WorkerCrash), outcome


@pytest.fixture
def victim():
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("policy", ["compute", FAMILY], ids=["compute", "processes"])
def test_process_of_the_host_is_not_reached_by_any_call_that_signals(arena, victim, policy):
    kill = int(signal.SIGKILL)
    assert isinstance(arena.attack(signal_through_descriptor(victim.pid, kill), policy), PluginError)
    for number, arguments in {62: (victim.pid, kill), 200: (victim.pid, kill), 234: (victim.pid, victim.pid, kill),
                              129: (victim.pid, kill, 0), 297: (victim.pid, victim.pid, kill, 0)}.items():  # fmt: skip
        result, error = arena.attack(make_call(number, *arguments), policy)
        assert result == -1
        assert error in (errno.EPERM, errno.ESRCH)
    assert victim.poll() is None
    assert psutil.Process(victim.pid).status() != psutil.STATUS_STOPPED


def test_where_nothing_stops_it_the_process_is_killed(arena, victim):
    assert arena.control(signal_through_descriptor(victim.pid, int(signal.SIGKILL))) == "sent"
    assert victim.wait(5) == -signal.SIGKILL
