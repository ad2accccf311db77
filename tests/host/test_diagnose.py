"""Why a worker ended, from facts alone: a table of facts and the one reason that follows. The first cause wins."""

import itertools
import os
import signal

import pytest

from fxcell.host.diagnose import SETUP_FAILED, Facts, HostCause, diagnose
from fxcell.policies.crash import DeniedSyscall, Reason

PTRACE = DeniedSyscall("ptrace", 101, (16, 1, 0, 0, 0, 0), "0xc000003e")
KILLED, SEGV, XCPU = signal.SIGKILL, signal.SIGSEGV, signal.SIGXCPU
DEADLINE = HostCause(Reason.DEADLINE, "no answer within 2 s")
CPU = HostCause(Reason.CPU_LIMIT, "the command used 31 s of CPU time")
PROTOCOL = HostCause(Reason.PROTOCOL_VIOLATION, "a frame starts with b'garb'")
STOPPED = HostCause(Reason.STOPPED, "it was stopped")
OUTPUT = HostCause(Reason.OUTPUT_LIMIT, "the worker wrote more than 1024 bytes of output")


def seen(supervisor_cause, status, **more):
    """Facts with a supervisor's report."""
    return Facts(supervisor_cause=supervisor_cause, status=status, **more)


def exited(code):
    return code << 8


TABLE = [
    # name, facts, reason, words in the detail
    ("segfault", seen("", SEGV), Reason.SIGNAL, "SIGSEGV"),
    ("segfault with a core bit", seen("", SEGV | 0x80), Reason.SIGNAL, "SIGSEGV"),
    ("abort", seen("", signal.SIGABRT), Reason.SIGNAL, "SIGABRT"),
    ("realtime signal", seen("", 40), Reason.SIGNAL, "signal 40"),
    ("SIGXCPU, which a worker can send itself", seen("", XCPU), Reason.SIGNAL, "SIGXCPU"),
    ("exit 0 without an answer", seen("", exited(0)), Reason.EXITED, "status 0"),
    ("exit 7", seen("", exited(7)), Reason.EXITED, "status 7"),
    ("exit in mid-frame", seen("", exited(0), mid_frame=True), Reason.EXITED, "middle of a message"),
    ("bare SIGKILL", seen("", KILLED), Reason.KILLED_EXTERNALLY, "SIGKILL"),
    ("SIGKILL and a memory kill",
     seen("", KILLED, memory_kills=1, memory_limit="64 MiB"), Reason.OUT_OF_MEMORY, "64 MiB"),
    ("memory kill of a child, segfault of its parent", seen("", SEGV, memory_kills=1), Reason.SIGNAL, "SIGSEGV"),
    ("SIGKILL where nothing counts kills for memory",
     seen("", KILLED, memory_kills=None), Reason.KILLED_EXTERNALLY, "as far as can be"),
    ("MemoryError",
     seen("host", KILLED, memory_error=True, memory_limit="RLIMIT_DATA"), Reason.OUT_OF_MEMORY, "RLIMIT_DATA"),
    ("MemoryError that was raised without need",
     seen("host", KILLED, memory_error=True, memory_limit="512 MiB", peak_bytes=11 << 20), Reason.OUT_OF_MEMORY,
     "raised MemoryError; it held 11 MiB at most, the kernel killed none of its processes for memory, it may use 512 MiB"),
    ("flood of the pipe for stacks", seen("stack_limit", KILLED), Reason.OUTPUT_LIMIT, "(descriptor 5)"),
    ("denied call", seen("denied_syscall", KILLED, denied=PTRACE), Reason.DENIED_SYSCALL, "ptrace(0x10, 0x1"),
    ("output limit seen by the supervisor", seen("output_limit", KILLED), Reason.OUTPUT_LIMIT, "stdout"),
    ("output limit seen by the host", seen("host", KILLED, host_cause=OUTPUT), Reason.OUTPUT_LIMIT, "1024 bytes"),
    ("deadline", seen("host", KILLED, host_cause=DEADLINE), Reason.DEADLINE, "2 s"),
    ("CPU limit", seen("host", KILLED, host_cause=CPU), Reason.CPU_LIMIT, "31 s"),
    ("bad frame", seen("host", KILLED, host_cause=PROTOCOL), Reason.PROTOCOL_VIOLATION, "garb"),
    ("stopped", seen("host", KILLED, host_cause=STOPPED), Reason.STOPPED, "stopped"),
    ("supervisor killed", Facts(supervisor_status=KILLED), Reason.KILLED_EXTERNALLY, "supervisor died of SIGKILL"),
    ("supervisor killed for memory",
     Facts(supervisor_status=KILLED, memory_kills=1, memory_limit="64 MiB"), Reason.OUT_OF_MEMORY, "kernel"),
    ("supervisor exited without a report", Facts(supervisor_status=exited(1)), Reason.KILLED_EXTERNALLY, "status 1"),
    ("nobody left to tell", Facts(), Reason.CONNECTION_LOST, "gone"),
    # the first cause wins
    ("denied call, then the host's deadline",
     seen("denied_syscall", KILLED, denied=PTRACE, host_cause=DEADLINE), Reason.DENIED_SYSCALL, "ptrace"),
    ("output limit, then a broken frame",
     seen("output_limit", KILLED, host_cause=PROTOCOL), Reason.OUTPUT_LIMIT, "stdout"),
    ("deadline, while a memory kill came",
     seen("host", KILLED, host_cause=DEADLINE, memory_kills=1), Reason.DEADLINE, "2 s"),
    ("denied call, with a memory kill",
     seen("denied_syscall", KILLED, denied=PTRACE, memory_kills=2), Reason.DENIED_SYSCALL, "ptrace"),
    # not ready yet: always a failed start, whatever the cause
    ("segfault at start",
     seen("", SEGV, ready=False, last_words="Fatal Python error"), Reason.START_FAILED, "Fatal Python error"),
    ("lockdown refused",
     seen("", exited(SETUP_FAILED), ready=False, last_words="KernelRefused: pivot_root"), Reason.START_FAILED, "pivot_root"),
    ("too slow to start", seen("host", KILLED, ready=False, host_cause=DEADLINE), Reason.START_FAILED, "2 s"),
    ("stopped while it started", Facts(ready=False, host_cause=STOPPED), Reason.STOPPED, "stopped"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "reason", "words"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_facts_give_one_reason_with_the_values_that_decided(facts, reason, words):
    found, detail = diagnose(facts)
    assert found is reason
    assert words in detail
    assert detail.strip() == detail
    assert len(detail) < 2000


def test_every_combination_of_facts_has_a_reason():
    statuses = [None, 0, exited(0), exited(255), *range(1, 65), KILLED | 0x80]
    causes = [None, "", "denied_syscall", "output_limit", "stack_limit", "host"]
    for status, supervisor_cause, host_cause, ready, kills in itertools.product(
        statuses, causes, [None, DEADLINE, PROTOCOL], [True, False], [0, 1]
    ):
        if status is not None and os.WIFSTOPPED(status):
            continue
        facts = Facts(ready=ready, host_cause=host_cause, supervisor_cause=supervisor_cause, status=status, memory_kills=kills)
        reason, detail = diagnose(facts)
        assert isinstance(reason, Reason)
        assert detail


def test_words_of_a_failed_start_are_cut():
    _, detail = diagnose(seen("", exited(125), ready=False, last_words="x" * 100_000))
    assert len(detail) < 1000
