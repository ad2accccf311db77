"""A cgroup for each worker, where this machine lets us make one; otherwise the limits of the process alone hold."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import time

from fxcell.policies.errors import IsolationUnavailable
from fxcell.policies.limits import Limits
from fxcell.sandbox.kernel import cgroup

_numbers = itertools.count(1)
_OWNER = re.compile(r"fxcell-(?:host-(\d+)|(\d+)-(?:\d+|trial-\w+))")
"""A host's own leaf (sandbox/kernel/cgroup_v2.py), the group of one worker, or a trial's; with the host's process id."""


def places() -> dict[str, cgroup.Place]:
    """Where this process can make groups, by controller; empty where it cannot.

    Note:    the first call may move this process into a leaf of its own group, which is possible only while it is alone
             there: call it before anything is started.
    """
    return _found().places


@functools.cache
def _found() -> cgroup.Found:
    found = cgroup.find()
    sweep(found.places if found.counting is None else found.places | {"cpuacct": found.counting})
    return found


def missing() -> str:
    """Why a memory or task limit is not held by a cgroup here, and what to do, in two lines; "" when both are."""
    found = _found()
    if not found.missing:
        return ""
    causes = "; ".join(f"{controller}: {why}" for controller, why in sorted(found.missing.items()))
    return f"{causes}\n{FIX}"


FIX = (
    "start the host alone in a delegated group: "
    f"systemd-run {'' if os.geteuid() == 0 else '--user '}--scope -p Delegate=yes python3 ..."
)


def sweep(where: dict[str, cgroup.Place], older_than_s: float = 60.0) -> None:
    """Remove the groups of hosts that were killed: their workers are gone, and nobody else takes the empty groups away.

    older_than_s: younger groups are left; they may belong to a host of another pid namespace, whose pid says nothing here.
    """
    for folder in {place.folder for place in where.values()}:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                match = _OWNER.fullmatch(entry.name)
                if match is None or os.path.exists(f"/proc/{match[1] or match[2]}"):
                    continue
                with contextlib.suppress(OSError):  # EBUSY: not empty, so not dead
                    if time.time() - entry.stat().st_mtime >= older_than_s:
                        os.rmdir(entry.path)


def group_for(limits: Limits) -> cgroup.Group | None:
    """A new group with these limits, or None where no controller can be used.

    Raises: IsolationUnavailable - a group can be made here but not limited: never go on without what was there before.
    """
    where = places()
    if not where:
        return None
    # One process cannot lose the CPU time of ended children, and a group in one more hierarchy costs every start.
    counting = _found().counting if limits.processes > 1 and all(p.version == 1 for p in where.values()) else None
    while True:
        name = f"fxcell-{os.getpid()}-{next(_numbers)}"
        try:
            tasks = limits.processes + limits.threads
            return cgroup.Group(where, name, memory_bytes=limits.memory_bytes, tasks=tasks, counting=counting)
        except FileExistsError:
            continue  # of a killed host that had our pid
        except OSError as error:
            raise IsolationUnavailable(
                "limits",
                f"the cgroup {name} could not be made: {error}",
                f"free the cgroup tree of this process from other limits, or {FIX}",
            ) from error


def workers_can_enter() -> bool:
    """True where a worker can go into its group by itself (Group.doors), which the next worker is made ready for."""
    where = places()
    return bool(where) and all(place.version == 1 for place in where.values())


def describe_memory(group: cgroup.Group | None) -> str:
    """What enforces the memory limit, in words, for reports."""
    if group is None or "memory" not in places():
        return "RLIMIT_DATA of the process (private memory only)"
    return f"memory cgroup v{places()['memory'].version}"
