"""A cgroup for each worker, where this machine lets us make one; otherwise the limits of the process alone hold."""

from __future__ import annotations

import functools
import itertools
import os

from fxcell.policies.errors import IsolationUnavailable
from fxcell.policies.limits import Limits
from fxcell.sandbox.kernel import cgroup

_numbers = itertools.count(1)


@functools.cache
def places() -> dict[str, cgroup.Place]:
    """Where this process can make groups, by controller; empty where it cannot."""
    return cgroup.places()


def group_for(limits: Limits) -> cgroup.Group | None:
    """A new group with these limits, or None where no controller can be used.

    Raises: IsolationUnavailable - a group can be made here but not limited: never go on without what was there before.
    """
    where = places()
    if not where:
        return None
    name = f"fxcell-{os.getpid()}-{next(_numbers)}"
    try:
        return cgroup.Group(where, name, memory_bytes=limits.memory_bytes, tasks=limits.processes + limits.threads)
    except OSError as error:
        raise IsolationUnavailable(
            "limits",
            f"the cgroup {name} could not be made: {error}",
            "free the cgroup tree of this process from other limits, or start it in a delegated group",
        ) from error


def describe_memory(group: cgroup.Group | None) -> str:
    """What enforces the memory limit, in words, for reports."""
    if group is None or "memory" not in places():
        return "RLIMIT_DATA of the process (private memory only)"
    return f"memory cgroup v{places()['memory'].version}"
