"""Signals to, and the memory of, other processes: the host, the supervisor, a sibling worker."""

import errno
import os
import signal

import pytest

from fxcell import FX, PluginError, Reason, WorkerCrash, run, zef_function
from tests.escapes.conftest import add


@zef_function
def send_signal(pid, number):
    import os

    os.kill(pid, number)
    return "sent"


@zef_function
def signal_thread_of(pid, number):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syscall(234, pid, pid, number) == -1 else 0


@zef_function
def read_file(path):
    with open(path, "rb") as file:
        return file.read(4096)


@zef_function
def signal_by_thread_limits(pid):
    import resource

    return resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))


def sibling_pid(arena):
    return next(w["pid"] for w in FX.ListWorkerProcesses() | run if w["process"] == arena.neighbour)


@pytest.mark.parametrize("whom", ["host", "sibling", "supervisor", "everybody", "group"])
def test_signal_to_others_is_refused(arena, whom):
    pid = {"host": os.getpid(), "sibling": sibling_pid(arena), "supervisor": 1, "everybody": -1, "group": 0}[whom]
    for number in (0, int(signal.SIGKILL)):
        outcome = arena.attack(send_signal(pid, number))
        assert isinstance(outcome, PluginError), outcome
        assert outcome.type_name == "PermissionError"


def test_thread_signal_to_the_host_is_refused(arena):
    assert arena.attack(signal_thread_of(os.getpid(), int(signal.SIGTERM))) == errno.EPERM


def test_where_nothing_stops_it_a_signal_reaches_the_host(arena):
    assert arena.control(send_signal(os.getpid(), 0)) == "sent"


def test_limits_of_others_and_its_own_cannot_be_set(arena):
    for pid in (0, 1, os.getpid()):
        outcome = arena.attack(signal_by_thread_limits(pid))
        assert isinstance(outcome, PluginError | WorkerCrash), outcome


@pytest.mark.parametrize(
    "path", ["/proc/1/environ", "/proc/self/mem", "/proc/self/status", "/proc/{host}/environ", "/proc/{sibling}/mem"]
)
def test_no_process_can_be_looked_at(arena, path):
    path = path.format(host=os.getpid(), sibling=sibling_pid(arena))
    outcome = arena.attack(read_file(path))
    assert isinstance(outcome, PluginError), outcome
    assert outcome.type_name in ("FileNotFoundError", "PermissionError")


def test_where_nothing_stops_it_the_hosts_environment_is_read(arena):
    assert b"PATH" in arena.control(read_file(f"/proc/{os.getpid()}/environ"))


def test_the_sibling_is_the_same_process_afterwards(arena):
    before = sibling_pid(arena)
    arena.attack(send_signal(before, int(signal.SIGKILL)))
    assert sibling_pid(arena) == before
    assert FX.SendCommandToWorkerProcess(process=arena.neighbour, command=add(1, 1)) | run == 2


@zef_function
def become_root():
    import os

    os.setuid(0)
    return os.getuid()


def test_becoming_root_is_refused(arena):
    for policy in ("compute", "strict"):
        outcome = arena.attack(become_root(), policy)
        assert isinstance(outcome, PluginError | WorkerCrash), outcome
        if isinstance(outcome, WorkerCrash):
            assert outcome.reason is Reason.DENIED_SYSCALL
