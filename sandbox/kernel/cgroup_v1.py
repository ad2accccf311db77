"""Control groups, version 1: one tree for each controller. cgroups(7), Linux Documentation/admin-guide/cgroup-v1."""

from __future__ import annotations

from fxcell.sandbox.kernel.cgroup_files import counter, lines, write, write_if_there

LIMIT_FILES = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
"""Controller -> the file without which it limits nothing."""

CPU_TIME_FILE = "cpuacct.usage"


def limit_memory(path: str, memory_bytes: int) -> None:
    """Set the limit, of memory and swap together where the kernel counts swap."""
    write(f"{path}/memory.limit_in_bytes", str(memory_bytes))
    write_if_there(f"{path}/memory.memsw.limit_in_bytes", str(memory_bytes))


def oom_kills(path: str) -> int:
    """How many processes the kernel killed for want of memory. Linux 4.13."""
    return counter(f"{path}/memory.oom_control", "oom_kill")


def peak_bytes(path: str) -> int:
    """Most memory the group ever held; 0 when the kernel does not tell."""
    return int((lines(f"{path}/memory.max_usage_in_bytes") or ["0"])[0])


def cpu_s(path: str) -> float:
    """CPU seconds that all processes of a group of the cpuacct hierarchy used, ended ones included."""
    return int((lines(f"{path}/{CPU_TIME_FILE}") or ["0"])[0]) / 1e9


def kill(_path: str) -> None:
    """Nothing: version 1 cannot end a group as a whole; the pid namespace or the supervisor does."""
