"""System calls no policy can grant: the worker ends, and the evidence names the call and its arguments."""

import errno
import platform

import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from tests.escapes.calls import NUMBERS, make_call
from tests.escapes.conftest import compute

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the table of numbers is for x86_64")

WIDEST = compute(
    name="every word",
    allow=frozenset({"threads", "load_libraries", "processes", "scratch", "writable_code"}),
    limits={"processes": 3, "scratch_bytes": 2**20, "file_bytes": 2**20},
)
NEW_USER, NEW_MOUNT, NEW_NET, UNTRACED, SIGCHLD = 0x10000000, 0x00020000, 0x40000000, 0x00800000, 17
ENDS = {
    # name: arguments that would do harm where nothing stops them
    "ptrace": (16, 1, 0, 0), "process_vm_readv": (1, 0, 0, 0, 0, 0), "process_vm_writev": (1, 0, 0, 0, 0, 0),
    "kcmp": (1, 2, 0, 0, 0),
    "bpf": (0, 0, 0), "perf_event_open": (0, 0, -1, -1, 0), "userfaultfd": (0,), "personality": (0x0040000,),
    "keyctl": (0, -3, 0), "add_key": (0, 0, 0, 0, -3), "request_key": (0, 0, 0, 0),
    "unshare": (NEW_USER,), "setns": (0, NEW_USER), "chroot": (0,), "pivot_root": (0, 0), "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 2),
    "open_tree": (-100, 0, 1), "move_mount": (-100, 0, -100, 0, 0), "fsopen": (0, 0), "fsmount": (0, 0, 0),
    "mount_setattr": (-100, 0, 0, 0, 0),
    "execve": (0, 0, 0), "execveat": (-100, 0, 0, 0, 0x1000), "mknod": (0, 0o060666, 0),
    "mknodat": (-100, 0, 0o020666, 0),
    "seccomp": (1, 8, 0), "init_module": (0, 0, 0), "finit_module": (0, 0, 0), "kexec_file_load": (0, 0, 0, 0, 0),
    "reboot": (0, 0, 0, 0),
    "swapon": (0, 0), "acct": (0,), "iopl": (3,), "settimeofday": (0, 0), "quotactl": (0, 0, 0, 0),
    "name_to_handle_at": (-100, 0, 0, 0, 0),
    "open_by_handle_at": (-100, 0, 0), "timer_create": (0, 0, 0),
}  # fmt: skip
REFUSED = {
    # name: (arguments, errno): calls that honest libraries try
    "clone3": ((0, 88), errno.ENOSYS), "io_uring_setup": ((8, 0), errno.ENOSYS), "pidfd_open": ((1, 0), errno.EPERM),
    "pidfd_getfd": ((0, 0, 0), errno.EPERM), "vmsplice": ((0, 0, 0, 0), errno.EPERM), "memfd_secret": ((0,), None),
    "landlock_create_ruleset": ((0, 0, 1), None),
}  # fmt: skip


@pytest.mark.parametrize("policy", ["compute", WIDEST], ids=["compute", "every word"])
@pytest.mark.parametrize("name", ENDS)
def test_call_ends_the_worker_and_is_named(arena, name, policy):
    crash = arena.attack(make_call(NUMBERS[name], *ENDS[name]), policy)
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason is Reason.DENIED_SYSCALL
    assert (crash.evidence.syscall.name, crash.evidence.syscall.number) == (name, NUMBERS[name])
    given = tuple(argument % 2**64 for argument in ENDS[name])
    assert crash.evidence.syscall.arguments[: len(given)] == given
    assert "in make_call" in crash.evidence.python_stack


@pytest.mark.parametrize("name", REFUSED)
def test_call_that_libraries_probe_is_refused(arena, name):
    arguments, number = REFUSED[name]
    outcome = arena.attack(make_call(NUMBERS[name], *arguments), WIDEST)
    if number is None:
        assert isinstance(outcome, WorkerCrash), outcome
        assert outcome.evidence.syscall.name == name
    else:
        assert outcome == (-1, number)


@pytest.mark.parametrize(
    "flags", [NEW_USER, NEW_MOUNT, NEW_NET, UNTRACED, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x80, 0x2000]
)
def test_clone_with_a_forbidden_flag_is_refused_even_where_fork_is_granted(arena, flags):
    result, error = arena.attack(make_call(NUMBERS["clone"], flags | SIGCHLD, 0, 0, 0, 0), WIDEST)
    assert (result, error) == (-1, errno.EPERM)


def test_clone_flag_hidden_behind_high_bits_is_refused(arena):
    assert arena.attack(make_call(NUMBERS["clone"], NEW_USER | SIGCHLD | 1 << 40, 0, 0, 0, 0), WIDEST) == (
        -1,
        errno.EPERM,
    )


@pytest.mark.parametrize("name", ["personality", "unshare", "seccomp", "perf_event_open", "kcmp"])
def test_where_nothing_stops_it_the_call_reaches_the_kernel(arena, name):
    # A control of the evidence above: these numbers and arguments are answered by a kernel, not by a missing call.
    outcome = arena.control(make_call(NUMBERS[name], *ENDS[name]))
    assert isinstance(outcome, tuple), outcome
    assert outcome[1] != errno.ENOSYS


@zef_function
def run_program(path):
    import os

    os.execv(path, [path])


@zef_function
def run_program_from_memory():
    import os

    descriptor = os.memfd_create("program")
    os.write(descriptor, b"#!/bin/true\n")
    os.execve(descriptor, ["program"], {})


@zef_function
def start_subprocess():
    import subprocess

    return subprocess.run(["/bin/echo", "out"], capture_output=True, check=True).stdout


@zef_function
def spawn_shell_in_a_terminal():
    import pty

    return pty.spawn(["/bin/sh", "-c", "id"])


@pytest.mark.parametrize(
    ("call", "name"),
    [(run_program("/bin/sh"), "execve"), (run_program_from_memory(), "execveat")],
    ids=["file", "memory"],
)
def test_running_another_program_is_denied_by_every_policy(arena, call, name):
    for policy in ("compute", WIDEST):
        crash = arena.attack(call, policy)
        assert (crash.reason, crash.evidence.syscall.name) == (Reason.DENIED_SYSCALL, name)


@pytest.mark.parametrize(
    "call", [start_subprocess(), spawn_shell_in_a_terminal()], ids=lambda call: call.definition.name
)
def test_subprocess_and_terminal_start_nothing(arena, call):
    outcome = arena.attack(call)
    assert isinstance(outcome, PluginError | WorkerCrash)


def test_where_nothing_stops_it_a_subprocess_runs(arena):
    assert arena.control(start_subprocess()) == b"out\n"


def test_the_next_worker_is_not_harmed_by_denied_ones(arena):
    for _ in range(5):
        assert arena.attack(make_call(NUMBERS["mount"], 0, 0, 0, 0, 0)).reason is Reason.DENIED_SYSCALL
