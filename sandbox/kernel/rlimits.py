"""Resource limits of one process: setrlimit(2)."""

from __future__ import annotations

import resource

from fxcell.policies.errors import KernelRefused

KINDS = {
    "cpu_s": resource.RLIMIT_CPU,
    "data_bytes": resource.RLIMIT_DATA,
    "address_bytes": resource.RLIMIT_AS,
    "file_bytes": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "core_bytes": resource.RLIMIT_CORE,
    "locked_bytes": resource.RLIMIT_MEMLOCK,
    "queue_bytes": resource.RLIMIT_MSGQUEUE,
    "pending_signals": resource.RLIMIT_SIGPENDING,
    "stack_bytes": resource.RLIMIT_STACK,
}


def set_limit(kind: str, soft: int, hard: int) -> None:
    """Set one limit, never above what this process already has.

    Raises: KernelRefused - the present hard limit is lower and this process may not raise it.
    """
    _, present_hard = resource.getrlimit(KINDS[kind])
    if present_hard != resource.RLIM_INFINITY:
        soft, hard = min(soft, present_hard), min(hard, present_hard)
    try:
        resource.setrlimit(KINDS[kind], (soft, hard))
    except (OSError, ValueError) as error:
        raise KernelRefused(f"set the limit {kind} to {soft}", getattr(error, "errno", 0) or 0, "setrlimit") from error


def raise_to_hard(kind: str) -> None:
    """Raise this process's soft limit to its hard one."""
    _, hard = resource.getrlimit(KINDS[kind])
    resource.setrlimit(KINDS[kind], (hard, hard))


def set_limit_of(pid: int, kind: str, value: int) -> None:
    """Lower one limit, soft and hard, of another process of the same user.

    Before:  the caller is its parent and has not waited for it, so that the number is still its own.
    Raises:  KernelRefused. Source: prlimit(2).
    """
    try:
        _, present_hard = resource.prlimit(pid, KINDS[kind])
        value = value if present_hard == resource.RLIM_INFINITY else min(value, present_hard)
        resource.prlimit(pid, KINDS[kind], (value, value))
    except OSError as error:
        raise KernelRefused(f"set the limit {kind} of the worker to {value}", error.errno or 0, "prlimit") from error


def hard_limit(kind: str) -> int:
    """The present hard limit, or -1 for none."""
    return resource.getrlimit(KINDS[kind])[1]


def get_limit(kind: str) -> int:
    """The present soft limit, or -1 for none."""
    return resource.getrlimit(KINDS[kind])[0]
