"""The CPU limit of a command, watched from outside: a worker cannot switch it off, and only long commands pay for it."""

from __future__ import annotations

import os
import time

import psutil

from fxcell.policies.limits import Limits

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
        now_s = self._cpu_s()
        if self._base_s is None:
            # What the first moments used at most is counted in.
            self._base_s = now_s - min(now_s, _FIRST_LOOK_S)
        used_s = now_s - self._base_s
        if used_s > self._limit_s:
            return f"the command used {used_s:.2f} s of CPU time, {self._limit_s:g} s are allowed"
        self.next_look = time.monotonic() + max(0.05, (self._limit_s - used_s) / self._cpus)
        return None

    def _cpu_s(self) -> float:
        total = 0.0
        try:
            for process in psutil.Process(self._pid).children(recursive=True):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:
            pass  # it is ending: the channel will tell
        return total
