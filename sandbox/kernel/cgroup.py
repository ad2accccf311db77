"""Control groups: limits and counts for a whole tree of processes. cgroups(7).

What counts is where a *controller* can be used, not what is mounted: machines exist with a v2 tree that has no
controllers beside v1 trees that have them. The two versions' own ways are in cgroup_v1 and cgroup_v2.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from types import ModuleType

from fxcell.sandbox.kernel import cgroup_v1, cgroup_v2
from fxcell.sandbox.kernel.cgroup_files import counter, lines, write

CONTROLLERS = ("memory", "pids")
_VERSIONS: dict[int, ModuleType] = {1: cgroup_v1, 2: cgroup_v2}
_REMOVE_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups for one controller can be made. version: 1 or 2. folder: the group this process may divide."""

    controller: str
    version: int
    folder: str


@dataclass(frozen=True, slots=True)
class Found:
    """places: controller -> where it can be used. missing: controller -> why it cannot be used anywhere.

    counting: where version 1 counts the CPU time of groups, if anywhere; every group of version 2 does.
    """

    places: dict[str, Place]
    missing: dict[str, str]
    counting: Place | None


def find() -> Found:
    """Look for a place for each controller that this process can really use: found by making and removing a group.

    After:   under v2 this process may have moved from its group, if it was alone in it, into a leaf below (cgroup_v2).
    """
    places: dict[str, Place] = {}
    missing = {controller: f"no hierarchy with the {controller} controller is mounted" for controller in CONTROLLERS}
    for version, folder, offered in _hierarchies():
        controllers = [controller for controller in offered if controller not in places]
        refused = cgroup_v2.hand_down(folder, controllers) if version == 2 else {}
        for controller in controllers:
            why = refused.get(controller) or _refusal(folder, _VERSIONS[version].LIMIT_FILES[controller])
            if why:
                missing[controller] = why
            else:
                places[controller] = Place(controller, version, folder)
                del missing[controller]
    counting = [folder for version, folder, _ in _hierarchies(("cpuacct",)) if version == 1]
    usable = counting and not _refusal(counting[0], cgroup_v1.CPU_TIME_FILE)
    return Found(places, missing, Place("cpuacct", 1, counting[0]) if usable else None)


def _hierarchies(wanted: tuple[str, ...] = CONTROLLERS) -> list[tuple[int, str, tuple[str, ...]]]:
    """(version, the group there that this process may divide, controllers it may have), as mounted."""
    own = _own_groups()
    found = []
    for line in lines("/proc/self/mountinfo"):
        words = line.split()
        kind, _, options = words[words.index("-") + 1 :][:3]
        root, mount_point = words[3], words[4]
        if kind not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind == "cgroup2" else 1
        controllers = wanted if version == 2 else tuple(c for c in wanted if c in options.split(","))
        group = own.get("" if version == 2 else controllers[0]) if controllers else None
        if group is not None:
            folder = os.path.normpath(mount_point + "/" + group.removeprefix("" if root == "/" else root))
            found.append((version, cgroup_v2.divisible(folder) if version == 2 else folder, controllers))
    return found


def _own_groups() -> dict[str, str]:
    groups = {}
    for line in lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _refusal(folder: str, file: str) -> str:
    """Why a group made here could not be limited or counted by this file; "" when it can."""
    try:
        trial = tempfile.mkdtemp(prefix=f"fxcell-{os.getpid()}-trial-", dir=folder)
    except OSError as error:
        return f"no group can be made in {folder}: {error.strerror}"
    try:
        return "" if os.access(f"{trial}/{file}", os.W_OK) else f"a group made in {folder} has no {file}"
    finally:
        os.rmdir(trial)


class Group:
    """One group of processes with limits on memory and tasks, over one to three hierarchies."""

    def __init__(
        self, where: dict[str, Place], name: str, *, memory_bytes: int, tasks: int, counting: Place | None = None
    ) -> None:
        """Make it and set the limits.

        counting: where version 1 counts CPU time; not needed where `where` is of version 2, nor for a single process.

        Raises: OSError - it could not be made or limited; nothing is left then. FileExistsError - never taken over: the
        counts of somebody else's group would speak of this worker.
        """
        self._paths: dict[str, str] = {}
        self._memory = _VERSIONS[where["memory"].version if "memory" in where else 1]
        self._v2 = {f"{place.folder}/{name}" for place in where.values() if place.version == 2}
        try:
            for controller, place in (where if counting is None else where | {counting.controller: counting}).items():
                path = f"{place.folder}/{name}"
                if path not in self._paths.values():  # v2, and v1 with both controllers in one hierarchy: one group
                    os.mkdir(path, 0o755)
                self._paths[controller] = path
            if "memory" in self._paths:
                self._memory.limit_memory(self._paths["memory"], memory_bytes)
            if "pids" in self._paths:
                write(f"{self._paths['pids']}/pids.max", str(tasks))
        except OSError:
            self.remove()
            raise

    def enter(self, pid: int) -> None:
        """Put a process into the group. Raises OSError; ESRCH when it has ended."""
        for path in set(self._paths.values()):
            write(f"{path}/cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Descriptors by which a process with one thread enters by itself: it writes "0". The caller closes them.

        None for version 2. Whoever moves another process waits for an RCU grace period of the whole machine (measured: 0.1 ms
        against 10 ms); one that moves itself does not. Source: cgroup_procs_write_start() in kernel/cgroup/cgroup.c.
        """
        opened: list[int] = []
        if self._v2:
            return opened
        try:
            opened.extend(os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in sorted(self.paths))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            return []
        return opened

    def holds(self, pid: int) -> bool:
        """True when a process is in the group, in each hierarchy; asked of the kernel."""
        return all(str(pid) in lines(f"{path}/cgroup.procs") for path in self.paths)

    @property
    def paths(self) -> set[str]:
        """The directories that it is."""
        return set(self._paths.values())

    def oom_kills(self) -> int:
        """How many processes of the group the kernel killed for want of memory."""
        if "memory" not in self._paths:
            return 0
        return int(self._memory.oom_kills(self._paths["memory"]))

    def refused_tasks(self) -> int:
        """How often the group refused a new process or thread."""
        return counter(f"{self._paths['pids']}/pids.events", "max") if "pids" in self._paths else 0

    def peak_bytes(self) -> int:
        """Most memory the group ever held; 0 when the kernel does not tell."""
        if "memory" not in self._paths:
            return 0
        return int(self._memory.peak_bytes(self._paths["memory"]))

    def cpu_s(self) -> float | None:
        """CPU seconds of everything that was ever in the group; None where it is not counted."""
        if self._v2:
            return cgroup_v2.cpu_s(min(self._v2))
        return cgroup_v1.cpu_s(self._paths["cpuacct"]) if "cpuacct" in self._paths else None

    def members(self) -> list[int]:
        """The process ids in the group, as this process sees them."""
        return sorted({int(line) for path in self._paths.values() for line in lines(f"{path}/cgroup.procs")})

    def remove(self) -> bool:
        """Remove the group once its processes have ended, which v2 sees to; False when some are there after two seconds."""
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
                    if path in self._v2:
                        cgroup_v2.kill(path)
                    time.sleep(0.001)
                else:
                    break
        return True
