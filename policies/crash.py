"""WorkerCrash: how a worker died, as one closed set of reasons with the evidence beside it.

The first cause wins and is never overwritten. Who decides the reason from the evidence is fxcell.host.diagnose.
"""

from __future__ import annotations

import hashlib
import re
import signal as signals
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from fxcell.policies.errors import OutcomeError


class Reason(StrEnum):
    """Why a worker ended; no other word is ever used."""

    DENIED_SYSCALL = "denied_syscall"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    CPU_LIMIT = "cpu_limit"
    DEADLINE = "deadline"
    EXITED = "exited"
    PROTOCOL_VIOLATION = "protocol_violation"
    OUTPUT_LIMIT = "output_limit"
    KILLED_EXTERNALLY = "killed_externally"
    START_FAILED = "start_failed"
    STOPPED = "stopped"
    CONNECTION_LOST = "connection_lost"


@dataclass(frozen=True, slots=True)
class DeniedSyscall:
    """The system call that ended a worker, as the kernel copied it from registers.

    name:         such as "ptrace", or "syscall_N" for a number without a name here.
    architecture: AUDIT_ARCH_* value of linux/audit.h, in hex ("0xc000003e" is x86-64).
    """

    name: str
    number: int
    arguments: tuple[int, ...]
    architecture: str

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{argument:#x}' for argument in self.arguments)})"


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """What a worker used until it ended: CPU seconds in user and kernel mode, wall seconds, largest resident bytes."""

    user_s: float = 0.0
    system_s: float = 0.0
    wall_s: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything known about a worker's end. Text fields hold what the worker wrote: treat them as untrusted.

    signal:       number of the signal that ended it, or None.     exit_code: its exit status, or None.
    syscall:      the denied call, for Reason.DENIED_SYSCALL.
    python_stack: what faulthandler wrote, "" when nothing came in time.
    last_effect:  name of the last effect that was asked for.      open_effect: one that was sent and not yet answered.
    command, plugin, policy: short digests.                        layers: the layers that were enforced.
    reproducer:   path of the record that `fxcell replay` runs again, of a run that was recorded; else None.
    """

    worker: str = ""
    signal: int | None = None
    exit_code: int | None = None
    syscall: DeniedSyscall | None = None
    python_stack: str = ""
    resources: ResourceUse = field(default_factory=ResourceUse)
    stdout_tail: str = ""
    stderr_tail: str = ""
    last_effect: str | None = None
    open_effect: str | None = None
    effects_performed: int = 0
    command: str = ""
    plugin: str = ""
    policy: str = ""
    layers: tuple[str, ...] = ()
    reproducer: str | None = None


class WorkerCrash(OutcomeError):
    """A worker died, and why. `str()` is one line; `to_dict()` is stable JSON.

    reason:   a Reason.
    detail:   the reason in words, with the values that decided; made one visible line, for it may quote the worker.
    evidence: an Evidence.
    """

    def __init__(self, reason: Reason, detail: str, evidence: Evidence) -> None:
        detail = _one_line(detail)
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return (WorkerCrash, (self.reason, self.detail, self.evidence))

    @property
    def signal_name(self) -> str | None:
        """Such as "SIGSEGV", or None."""
        return None if self.evidence.signal is None else signal_name(self.evidence.signal)

    @property
    def dedup_key(self) -> str:
        """Twelve hex digits that are equal for crashes of the same cause at the same place.

        From the reason, the signal, the system call's name and the innermost five Python frames (file name, function);
        not from line numbers, addresses or arguments.
        """
        # Bounded repeats: the stack is text that the worker could write, and a search must not be slow for any text.
        found = re.findall(
            r'File "([^"\n]{1,300})", line \d{1,9} in ([^\n]{1,200})', self.evidence.python_stack[:_STACK_SEARCHED]
        )
        frames = [(path.rpartition("/")[2], function) for path, function in found[:5]]
        syscall = self.evidence.syscall.name if self.evidence.syscall else ""
        parts = [
            self.reason.value,
            self.signal_name or "",
            syscall,
            *(f"{name}:{function}" for name, function in frames),
        ]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The crash as plain data: only str, int, float, None, lists and dicts; keys never change meaning."""
        evidence = asdict(self.evidence)
        evidence["layers"] = list(self.evidence.layers)
        if self.evidence.syscall is not None:
            evidence["syscall"]["arguments"] = list(self.evidence.syscall.arguments)
        return {
            "outcome": "WorkerCrash",
            "reason": self.reason.value,
            "detail": self.detail,
            "message": str(self),
            "signal_name": self.signal_name,
            "dedup_key": self.dedup_key,
            "evidence": evidence,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkerCrash:
        """Read back `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        parts = dict(data["evidence"])
        if parts["syscall"] is not None:
            call = parts["syscall"]
            parts["syscall"] = DeniedSyscall(
                call["name"], call["number"], tuple(call["arguments"]), call["architecture"]
            )
        parts["resources"] = ResourceUse(**parts["resources"])
        parts["layers"] = tuple(parts["layers"])
        return cls(Reason(data["reason"]), data["detail"], Evidence(**parts))


def _one_line(text: str) -> str:
    """Lines joined, control characters and lone surrogates escaped: safe for a log and a terminal."""
    joined = " | ".join(line.strip() for line in text.splitlines() if line.strip())
    return joined if joined.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)


_STACK_SEARCHED = 32 * 1024
"""Characters of a Python stack that the dedup key looks at."""


def signal_name(number: int) -> str:
    """Such as "SIGSEGV"; "signal 35" for one without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
