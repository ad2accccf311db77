"""Where things run: processes pinned to one CPU.

Where the two sides of a call run decides more than anything else. Left alone, the scheduler moves a ping-pong to one CPU as
soon as anything else runs, which makes it four times as fast.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable


def two_cpus() -> tuple[int, int] | None:
    """Two CPUs that this process may use, or None where there is one."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else None


def pin(processes: Iterable[int], cpu: int) -> None:
    """Every thread of these processes to one CPU; those that they start later follow. 0 is this process."""
    for process in processes:
        for thread in os.listdir(f"/proc/{process or os.getpid()}/task"):
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(int(thread), {cpu})
