"""Control groups, version 2: one tree for all controllers. cgroups(7), Linux Documentation/admin-guide/cgroup-v2.rst.

What makes it different: a group hands controllers to its children only by its cgroup.subtree_control, and (but for the
root) only while no process sits in the group itself: "no processes in inner nodes". A host that was started in a group
of its own therefore has to go one level down before it can divide that group: take_leaf.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from fxcell.sandbox.kernel.cgroup_files import counter, lines, words, write, write_if_there

LIMIT_FILES = {"memory": "memory.max", "pids": "pids.max"}
"""Controller -> the file without which it limits nothing."""

LEAF = re.compile(r"fxcell-host-(\d+)")
"""Name of the group that a host made for itself, with its process id."""


def divisible(own: str) -> str:
    """The group in which children can be made for a process that sits in `own`: the parent of a host's leaf, or `own`."""
    return os.path.dirname(own) if LEAF.fullmatch(os.path.basename(own)) else own


def hand_down(folder: str, controllers: Iterable[str]) -> dict[str, str]:
    """Let children of the group have these controllers; answer those that they cannot have, with why not.

    After:   where this process was alone in `folder` and may divide it, it sits in a leaf below (take_leaf).
    Note:    asked before it is tried: the kernel refuses a group that holds processes for some controllers (memory: EBUSY),
             and for others (pids) accepts it and makes children that no process can enter (EOPNOTSUPP).
    """
    offered = words(f"{folder}/cgroup.controllers")
    refused = {name: f"the {name} controller is not delegated to {folder}" for name in controllers if name not in offered}
    wanted = [name for name in controllers if name in offered]
    if not wanted:
        return refused
    held = occupied(folder)
    if held and not (delegated(folder) and alone(folder)):
        whose = "other processes too" if delegated(folder) else "this process, and is not delegated to it"
        return refused | dict.fromkeys(wanted, f"{folder} cannot be divided: it holds {whose}")
    try:
        with take_leaf(folder) if held else contextlib.nullcontext():
            for name in set(wanted).difference(words(f"{folder}/cgroup.subtree_control")):
                write(f"{folder}/cgroup.subtree_control", f"+{name}")
    except OSError as error:
        refused |= dict.fromkeys(wanted, f"{folder} cannot be divided: {error.strerror}")
    return refused


def occupied(folder: str) -> bool:
    """True when processes sit in the group itself, and it is not the root of all groups, which may be divided even so."""
    return bool(lines(f"{folder}/cgroup.procs")) and os.path.exists(f"{folder}/cgroup.type")


def delegated(folder: str) -> bool:
    """True when it is this process's business to divide the group.

    For an ordinary user: it owns the group, as cgroups(7), Delegation, has it. Root may write everywhere, so for root it
    takes systemd's mark on the group, the root of a container's own cgroup namespace, or a machine without systemd.
    """
    if os.geteuid() != 0:
        return os.stat(folder).st_uid == os.geteuid()
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return "0::/" in lines("/proc/self/cgroup") or not os.path.exists("/run/systemd/system")


def alone(folder: str) -> bool:
    """True when the group holds this process (and its threads) and no other, and no group below it holds anything."""
    if lines(f"{folder}/cgroup.procs") != [str(os.getpid())]:
        return False
    with os.scandir(folder) as entries:
        return not any(counter(f"{entry.path}/cgroup.events", "populated") for entry in entries if entry.is_dir())


@contextlib.contextmanager
def take_leaf(folder: str) -> Iterator[None]:
    """Move this process, alone in `folder`, into a new group below it; back when the block raises.

    Raises:  OSError - EACCES, EPERM: the group is not delegated to this user. This process is where it was, then.
    """
    leaf = f"{folder}/fxcell-host-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(leaf)  # of an earlier process that had our pid; EBUSY when it is not empty
    os.mkdir(leaf, 0o755)
    try:
        write(f"{leaf}/cgroup.procs", "0")
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            write(f"{folder}/cgroup.procs", "0")
        with contextlib.suppress(OSError):
            os.rmdir(leaf)
        raise


def limit_memory(path: str, memory_bytes: int) -> None:
    """Set the limit; no swap beside it; and end the whole group when it is passed, not its largest process."""
    write(f"{path}/memory.max", str(memory_bytes))
    write_if_there(f"{path}/memory.swap.max", "0")  # missing in a kernel without swap
    write_if_there(f"{path}/memory.oom.group", "1")  # Linux 4.19


def oom_kills(path: str) -> int:
    """How many processes the kernel killed for want of memory. Linux 4.13."""
    return counter(f"{path}/memory.events", "oom_kill")


def peak_bytes(path: str) -> int:
    """Most memory the group ever held; 0 before Linux 5.19, which does not tell."""
    return int((lines(f"{path}/memory.peak") or ["0"])[0])


def cpu_s(path: str) -> float:
    """CPU seconds that all processes of the group used, ended ones included; no controller is needed for it."""
    return counter(f"{path}/cpu.stat", "usage_usec") / 1e6


def kill(path: str) -> None:
    """End every process of the group at once, also one that forks meanwhile. Linux 5.14; before, nothing happens."""
    with contextlib.suppress(OSError):
        write(f"{path}/cgroup.kill", "1")
