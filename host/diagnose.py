"""Why a worker ended, from the facts alone: pure, no process is asked here.

An out-of-memory kill, a deadline, an operator's kill and a worker's own kill all end with SIGKILL. What tells them apart
is who acted first: the supervisor (a denied call, too much output), this host (deadline, CPU limit, protocol, stop), the
kernel's count of memory kills in the worker's own cgroup, and, when none of them did, somebody outside.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from fxcell.policies.crash import DeniedSyscall, Reason, signal_name
from fxcell.sandbox.syscalls import STACK_FD

SETUP_FAILED = 125
"""Exit status of a worker that could not be locked down (sandbox/worker.py)."""


@dataclass(frozen=True, slots=True)
class HostCause:
    """What this host decided before it ended the worker."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one end.

    ready:             the worker had passed the handshake.
    host_cause:        what this host acted on, if it did.
    supervisor_cause:  what the supervisor acted on first: "", "denied_syscall", "output_limit", "stack_limit" or "host";
                       None when it ended without a report.
    status:            of the worker, as wait(2) gives it, from the supervisor's report.
    supervisor_status: of the supervisor, from the template; None when unknown.
    memory_kills:      how many processes of the worker's own cgroup the kernel killed for want of memory in this command;
                       None where no memory cgroup counts them.
    memory_error:      the plugin ended in a MemoryError, whoever raised it.
    memory_limit:      the limit and what enforces it, in words.
    peak_bytes:        most memory that was ever held, as far as it is known; 0 when it is not.
    mid_frame:         the channel closed in the middle of a frame.
    last_words:        what the worker wrote to stderr, for failures at start.
    template_alive:    the process that the worker was forked from is still there.
    """

    ready: bool = True
    host_cause: HostCause | None = None
    supervisor_cause: str | None = None
    status: int | None = None
    supervisor_status: int | None = None
    denied: DeniedSyscall | None = None
    memory_kills: int | None = 0
    memory_error: bool = False
    memory_limit: str = ""
    peak_bytes: int = 0
    mid_frame: bool = False
    last_words: str = ""
    template_alive: bool = True


def diagnose(facts: Facts) -> tuple[Reason, str]:
    """The reason, and one line a person understands with the values that decided."""
    reason, detail = _cause(facts)
    if facts.ready or reason is Reason.STOPPED:
        return reason, detail
    words = f" It wrote: {facts.last_words.strip()[-600:]}" if facts.last_words.strip() else ""
    return Reason.START_FAILED, f"the worker ended before it was ready ({reason.value}: {detail}).{words}"


def _cause(facts: Facts) -> tuple[Reason, str]:
    if facts.supervisor_cause == "denied_syscall" and facts.denied is not None:
        return Reason.DENIED_SYSCALL, f"the worker called {facts.denied}, which its policy does not allow"
    if facts.supervisor_cause == "output_limit":
        return Reason.OUTPUT_LIMIT, "the worker wrote more to stdout and stderr than its policy allows"
    if facts.supervisor_cause == "stack_limit":
        return Reason.OUTPUT_LIMIT, f"the worker wrote more than 1 MiB into the pipe for its Python stack (descriptor {STACK_FD})"
    if facts.host_cause is not None:
        return facts.host_cause.reason, facts.host_cause.detail
    if facts.memory_error:
        return Reason.OUT_OF_MEMORY, _memory_error(facts)
    if facts.status is None:
        return _without_report(facts)
    if os.WIFSIGNALED(facts.status):
        return _signalled(os.WTERMSIG(facts.status), facts)
    code = os.waitstatus_to_exitcode(facts.status)
    return Reason.EXITED, f"the worker exited with status {code} instead of answering" + _mid_frame(facts)


def _memory_error(facts: Facts) -> str:
    """What is known: code can raise MemoryError for any reason, and an allocation that failed was never held."""
    held = f"it held {facts.peak_bytes / 2**20:.0f} MiB at most" if facts.peak_bytes else "how much it held is not known"
    kills = f"the kernel killed {facts.memory_kills or 'none'} of its processes for memory"
    if facts.memory_kills is None:
        kills = "nothing counts here whether the kernel killed any of its processes for memory"
    return f"the plugin raised MemoryError; {held}, {kills}, it may use {facts.memory_limit}"


def _signalled(number: int, facts: Facts) -> tuple[Reason, str]:
    name = signal_name(number)
    if number == signal.SIGKILL:
        if facts.memory_kills:
            return Reason.OUT_OF_MEMORY, f"the kernel killed it for using more than {facts.memory_limit}"
        who = "by somebody outside, or by the worker itself"
        kernel = "by the kernel for want of memory"
        if facts.memory_kills is None:
            kernel = f"as far as can be known without a memory cgroup {kernel}"
        return Reason.KILLED_EXTERNALLY, f"SIGKILL, sent neither by this host nor {kernel}: {who}"
    return (
        Reason.SIGNAL,
        f"the worker died of {name} ({_MEANINGS.get(name, 'not a fault of its own code, or sent to it')})"
        + _mid_frame(facts),
    )


def _without_report(facts: Facts) -> tuple[Reason, str]:
    if not facts.template_alive:
        return Reason.KILLED_EXTERNALLY, "its template process ended, and every worker of it with it"
    if facts.supervisor_status is None:
        return Reason.CONNECTION_LOST, "the worker is gone, and so is everything that could tell why"
    if os.WIFSIGNALED(facts.supervisor_status):
        name = signal_name(os.WTERMSIG(facts.supervisor_status))
        if facts.memory_kills:
            return Reason.OUT_OF_MEMORY, f"the kernel killed it for using more than {facts.memory_limit}"
        return Reason.KILLED_EXTERNALLY, f"its supervisor died of {name}, which this host did not send"
    code = os.waitstatus_to_exitcode(facts.supervisor_status)
    return Reason.KILLED_EXTERNALLY, f"its supervisor ended with status {code} without a report"


def _mid_frame(facts: Facts) -> str:
    return ", in the middle of a message" if facts.mid_frame else ""


_MEANINGS = {
    "SIGSEGV": "a bad memory access in native code, or a stack overflow",
    "SIGABRT": "abort() in native code",
    "SIGBUS": "a memory access beyond a mapped file, or misaligned",
    "SIGFPE": "a division by zero or overflow in native code",
    "SIGILL": "an instruction this processor does not have, or a compiler's trap",
    # The filter itself ends these, and no listener hears of them; but a worker can also send itself the signal.
    "SIGSYS": "a system call of another architecture, 32-bit or x32, or sent by itself",
    "SIGXFSZ": "a file larger than its policy allows",
}
