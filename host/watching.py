"""The CPU limit of a command, watched from outside: a worker cannot switch it off, and only long commands pay for it."""

from __future__ import annotations

import os
import threading
import time

from fxcell.policies.limits import Limits
from fxcell.sandbox.kernel import cgroup, processes

_FIRST_LOOK_S = 0.1
"""Commands shorter than this are never looked at; it is also the precision of the limit."""

_CPUS = os.cpu_count() or 1


class CpuMeter:
    """CPU seconds of one worker with all that it forked. Safe from many threads.

    The worker's cgroup counts them where there is one. Elsewhere the processes are read one by one: what an ended child
    used is in its parent's count, unless the parent ignores SIGCHLD. Then it is in nobody's, and is added here as it was
    when the child was last seen.

    exact: a worker cannot hide time by letting children end unnoticed between two looks.
    """

    def __init__(self, supervisor_pid: int, limits: Limits, group: cgroup.Group | None) -> None:
        self._pid = supervisor_pid
        self._group = group if limits.processes > 1 and group is not None and group.cpu_s() is not None else None
        self.exact = limits.processes == 1 or self._group is not None
        self._turn = threading.Lock()
        self._seen: dict[_Key, _Times] = {}
        self._vanished_s = 0.0
        self._last_s = 0.0

    def read_s(self) -> float:
        """What was used so far; never less than the time before."""
        with self._turn:
            used_s = self._group.cpu_s() if self._group is not None else None
            if used_s is None:
                used_s = self._read_processes()
            self._last_s = max(self._last_s, used_s)
            return self._last_s

    def _read_processes(self) -> float:
        now = times_below(self._pid)
        gone_s = sum(own + waited for key, (own, waited) in self._seen.items() if key not in now)
        inherited_s = sum(waited - self._seen.get(key, (0.0, 0.0))[1] for key, (_, waited) in now.items())
        # At the end of the worker everything is gone: nothing has vanished then.
        if now:
            self._vanished_s += max(0.0, gone_s - inherited_s)
            self._seen = now
        return self._vanished_s + sum(own + waited for own, waited in now.values())


class CpuWatch:
    """Looks at a worker's CPU time now and then, as seldom as its number of threads allows.

    next_look: time.monotonic() seconds of when to call look() again.
    """

    def __init__(self, meter: CpuMeter, limits: Limits) -> None:
        self._meter = meter
        self._limit_s = limits.cpu_s
        self._cpus = min(limits.processes + limits.threads, _CPUS)
        self._base_s: float | None = None
        self.next_look = time.monotonic() + _FIRST_LOOK_S

    def begin(self) -> None:
        """Note what was used before, unless that is done: before something that can take long without a look."""
        if self._base_s is None:
            self.look()

    def look(self) -> str | None:
        """What to say when the limit is passed; None before."""
        now_s = self._meter.read_s()
        if self._base_s is None:
            # What the first moments used at most is counted in.
            self._base_s = now_s - min(now_s, _FIRST_LOOK_S)
        used_s = now_s - self._base_s
        if used_s > self._limit_s:
            return f"the command used {used_s:.2f} s of CPU time, {self._limit_s:g} s are allowed"
        gap_s = max(0.05, (self._limit_s - used_s) / self._cpus)
        self.next_look = time.monotonic() + (gap_s if self._meter.exact else min(gap_s, _INEXACT_GAP_S))
        return None


_Key = tuple[int, int]
"""A process: its id and the clock tick at which it started."""
_Times = tuple[float, float]
"""CPU seconds of a process itself, and of the children that it waited for."""

_INEXACT_GAP_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def times_below(supervisor_pid: int) -> dict[_Key, _Times]:
    """The CPU time of a supervisor and every process below it; none once it is gone.

    Its own is what its worker makes it do: answer refused calls, read pipes.

    Source: proc_pid_stat(5), fields utime, stime, cutime, cstime, starttime.
    """
    found = {}
    left = [supervisor_pid]
    while left:
        pid = left.pop()
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it is ending: the channel will tell
        user, system, waited_user, waited_system = map(int, fields[11:15])
        found[pid, int(fields[19])] = (user + system) / _TICKS_PER_S, (waited_user + waited_system) / _TICKS_PER_S
        left += processes.children_of(pid)
    return found


def is_stopped(supervisor_pid: int) -> bool:
    """True when the worker, or its supervisor, has been stopped by a signal (SIGSTOP), so that it cannot answer."""
    try:
        return "T" in map(processes.state_of, (supervisor_pid, *processes.children_of(supervisor_pid)))
    except OSError:  # this process may open no more files: it is not known
        return False


def is_dead(supervisor_pid: int) -> bool:
    """True when the worker has ended, every thread of it, and its supervisor has not yet taken note."""
    try:
        return all(
            processes.state_of(child) == "Z" and processes.tasks_of(child) == 1
            for child in processes.children_of(supervisor_pid)
        )
    except OSError:
        return False
