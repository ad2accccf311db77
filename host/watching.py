"""The CPU limit of a command, watched from outside: a worker cannot switch it off, and only long commands pay for it."""

from __future__ import annotations

import os
import time

import psutil

from fxcell.policies.limits import Limits
from fxcell.sandbox.kernel import processes

_FIRST_LOOK_S = 0.1
"""Commands shorter than this are never looked at; it is also the precision of the limit."""

_CPUS = os.cpu_count() or 1


class CpuWatch:
    """Looks at a worker's CPU time now and then, as seldom as its number of threads allows.

    next_look: time.monotonic() seconds of when to call look() again.
    """

    def __init__(self, supervisor_pid: int, limits: Limits) -> None:
        self._pid = supervisor_pid
        self._limit_s = limits.cpu_s
        self._cpus = min(limits.processes + limits.threads, _CPUS)
        self._base_s: float | None = None
        self.next_look = time.monotonic() + _FIRST_LOOK_S

    def look(self) -> str | None:
        """What to say when the limit is passed; None before."""
        now_s = cpu_s_below(self._pid)
        if self._base_s is None:
            # What the first moments used at most is counted in.
            self._base_s = now_s - min(now_s, _FIRST_LOOK_S)
        used_s = now_s - self._base_s
        if used_s > self._limit_s:
            return f"the command used {used_s:.2f} s of CPU time, {self._limit_s:g} s are allowed"
        self.next_look = time.monotonic() + max(0.05, (self._limit_s - used_s) / self._cpus)
        return None


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s_below(supervisor_pid: int) -> float:
    """CPU seconds of a supervisor and everything below it, ended children included; 0 once it is gone.

    Its own are what its worker makes it do: answer refused calls, read pipes.

    Source: proc_pid_stat(5), fields utime, stime, cutime, cstime.
    """
    total = 0.0
    left = [supervisor_pid]
    while left:
        pid = left.pop()
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it is ending: the channel will tell
        total += sum(map(int, fields[11:15])) / _TICKS_PER_S
        left += processes.children_of(pid)
    return total


def is_stopped(supervisor_pid: int) -> bool:
    """True when the worker has been stopped by a signal (SIGSTOP), so that it cannot answer."""
    try:
        return any(child.status() == psutil.STATUS_STOPPED for child in psutil.Process(supervisor_pid).children())
    except psutil.Error:
        return False
