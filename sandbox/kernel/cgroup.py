"""Control groups: limits and counts for a whole tree of processes. cgroups(7); v2 and v1.

What counts is where a *controller* can be used, not what is mounted: machines exist with a v2 tree that has no
controllers beside v1 trees that have them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass

CONTROLLERS = ("memory", "pids")
_REMOVE_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups for one controller can be made. version: 1 or 2. folder: the group this process may divide."""

    controller: str
    version: int
    folder: str


def places() -> dict[str, Place]:
    """Controller -> place, for each controller this process can really use: found by making and removing a group."""
    own = _own_groups()
    controllers: tuple[str, ...]
    found: dict[str, Place] = {}
    for line in _lines("/proc/self/mountinfo"):
        words = line.split()
        kind, _, options = words[words.index("-") + 1 :][:3]
        root, mount_point = words[3], words[4]
        if kind == "cgroup2":
            version, controllers, group = 2, CONTROLLERS, own.get("")
        elif kind == "cgroup":
            version, controllers = 1, tuple(c for c in CONTROLLERS if c in options.split(","))
            group = own.get(controllers[0]) if controllers else None
        else:
            continue
        if group is None:
            continue
        folder = os.path.normpath(mount_point + "/" + group.removeprefix("" if root == "/" else root))
        for controller in controllers:
            if controller not in found and _usable(folder, controller, version):
                found[controller] = Place(controller, version, folder)
    return found


def _own_groups() -> dict[str, str]:
    groups = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _usable(folder: str, controller: str, version: int) -> bool:
    if version == 2:
        if controller not in _words(f"{folder}/cgroup.subtree_control"):
            # Works in the root group and in an empty delegated one; EBUSY where this process itself sits in the group.
            with contextlib.suppress(OSError):
                write(f"{folder}/cgroup.subtree_control", f"+{controller}")
        if controller not in _words(f"{folder}/cgroup.subtree_control"):
            return False
    try:
        trial = tempfile.mkdtemp(prefix=f"fxcell-{os.getpid()}-trial-", dir=folder)
    except OSError:
        return False
    try:
        limit = {"memory": "memory.limit_in_bytes" if version == 1 else "memory.max", "pids": "pids.max"}[controller]
        return os.access(f"{trial}/{limit}", os.W_OK)
    finally:
        os.rmdir(trial)


class Group:
    """One group of processes with limits on memory and tasks, over one or two hierarchies."""

    def __init__(self, where: dict[str, Place], name: str, *, memory_bytes: int, tasks: int) -> None:
        """Make it and set the limits.

        Raises: OSError - it could not be made or limited; nothing is left then. FileExistsError - never taken over: the
        counts of somebody else's group would speak of this worker.
        """
        self._paths: dict[str, str] = {}
        self._versions = {controller: place.version for controller, place in where.items()}
        try:
            for controller, place in where.items():
                path = f"{place.folder}/{name}"
                if path not in self._paths.values():  # v2, and v1 with both controllers in one hierarchy: one group
                    os.mkdir(path, 0o755)
                self._paths[controller] = path
            if "memory" in self._paths:
                self._limit_memory(memory_bytes)
            if "pids" in self._paths:
                write(f"{self._paths['pids']}/pids.max", str(tasks))
        except OSError:
            self.remove()
            raise

    def _limit_memory(self, memory_bytes: int) -> None:
        path = self._paths["memory"]
        if self._versions["memory"] == 2:
            write(f"{path}/memory.max", str(memory_bytes))
            _write_if_there(f"{path}/memory.swap.max", "0")
            _write_if_there(f"{path}/memory.oom.group", "1")
        else:
            write(f"{path}/memory.limit_in_bytes", str(memory_bytes))
            _write_if_there(f"{path}/memory.memsw.limit_in_bytes", str(memory_bytes))

    def enter(self, pid: int) -> None:
        """Put a process into the group. Raises OSError; ESRCH when it has ended."""
        for path in set(self._paths.values()):
            write(f"{path}/cgroup.procs", str(pid))

    def oom_kills(self) -> int:
        """How many processes of the group the kernel killed for want of memory."""
        if "memory" not in self._paths:
            return 0
        name = "memory.events" if self._versions["memory"] == 2 else "memory.oom_control"
        return _counter(f"{self._paths['memory']}/{name}", "oom_kill")

    def refused_tasks(self) -> int:
        """How often the group refused a new process or thread."""
        return _counter(f"{self._paths['pids']}/pids.events", "max") if "pids" in self._paths else 0

    def peak_bytes(self) -> int:
        """Most memory the group ever held; 0 when the kernel does not tell (v2 before Linux 5.19)."""
        if "memory" not in self._paths:
            return 0
        name = "memory.peak" if self._versions["memory"] == 2 else "memory.max_usage_in_bytes"
        lines = _lines(f"{self._paths['memory']}/{name}")
        return int(lines[0]) if lines else 0

    def members(self) -> list[int]:
        """The process ids in the group, as this process sees them."""
        return sorted({int(line) for path in self._paths.values() for line in _lines(f"{path}/cgroup.procs")})

    def remove(self) -> bool:
        """Remove the group once its processes have ended; False when some are still there after two seconds."""
        end = time.monotonic() + _REMOVE_PATIENCE_S
        for path in set(self._paths.values()):
            while True:
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    break
                except OSError:  # EBUSY: the kernel takes a moment to let go of a process that was reaped
                    if time.monotonic() > end:
                        return False
                    time.sleep(0.001)
                else:
                    break
        return True


def write(path: str, text: str) -> None:
    """Write a setting. Raises OSError with the kernel's answer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        write(path, text)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()


def _counter(path: str, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [name]), 0)
