"""Descriptors of processes and of this process: pidfds, close_range, signals by pidfd."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
from collections.abc import Collection

from fxcell.sandbox.kernel import libc

_HIGHEST = ctypes.c_uint(0xFFFFFFFF)


def close_all_except(kept: Collection[int]) -> None:
    """Close every descriptor of this process but the named ones. Source: close_range(2), Linux 5.9."""
    start = 0
    for descriptor in sorted(kept):
        if descriptor > start:
            libc.syscall("close inherited descriptors", "close_range", start, descriptor - 1, 0)
        start = descriptor + 1
    libc.syscall("close inherited descriptors", "close_range", start, _HIGHEST, 0)


def kill(pidfd: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal the process behind a pidfd; False when it has ended already. Never hits a recycled pid."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def signal_thread(process: int, thread: int, number: signal.Signals) -> bool:
    """Signal one thread of a process; False when it has ended. Source: tgkill(2)."""
    return libc.syscall_errno("tgkill", process, thread, int(number)) == 0


def place_at(wanted: dict[int, int]) -> None:
    """Give descriptors fixed numbers: target -> source. The sources stay open; the targets survive no exec."""
    above = max(wanted) + 1
    lifted = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above) for target, source in wanted.items()}
    for target, copy in lifted.items():
        os.dup2(copy, target, inheritable=False)
        os.close(copy)


def tasks_of(pid: int) -> int:
    """How many threads a process has. Raises OSError when that cannot be seen. Source: proc_pid_task(5)."""
    return os.stat(f"/proc/{pid}/task").st_nlink - 2


def children_of(pid: int) -> list[int]:
    """The processes that a process forked and that have not been reaped, as this process sees them.

    Each thread has a list of its own: what another thread than the first forked is not in the list of the first.
    Source: proc_pid_task(5), /proc/PID/task/TID/children, Linux 3.5 with CONFIG_PROC_CHILDREN.
    """
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return found
    for thread in threads:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file,
        ):
            found += map(int, file.read().split())
    return found


def state_of(pid: int) -> str:
    """The state of a process: R, S, D, T for stopped by a signal, Z for ended …; "" once it is gone. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def resident_bytes(pid: int) -> int:
    """How much memory a process holds at this moment. Raises OSError when it is gone. Source: proc_pid_statm(5)."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
