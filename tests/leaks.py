"""Count what a test left behind: processes, mounts, cgroups, temporary files, open descriptors.

    with assert_nothing_left():
        worker = FX.StartWorkerProcess() | run
        FX.StopWorkerProcess(process=worker) | run

snapshot() is what there is now, new_since(before) is what came on top of it. Things take a moment to go (the kernel
removes a mount namespace after its last process), so assert_nothing_left asks again until `patience_s` is over.

Other fxcell hosts may run on this machine at the same time. A cgroup or file whose name says `fxcell-PID` with a live
process outside this one's tree is theirs and is not counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_OWNER = re.compile(r"fxcell-(?:host-)?(\d+)(?![0-9A-Za-z])")
_OWN_LEAF = f"fxcell-host-{os.getpid()}"
"""Under cgroup v2 this process may sit in a group of its own, which lives as long as it does (host/cgroups.py)."""
# Descriptors that libraries open once and keep: not a leak, whenever they come.
KEPT_BY_LIBRARIES = {
    "/dev/urandom": "hashlib and OpenSSL seed from it",
    "/dev/null": "faulthandler and subprocess.DEVNULL of a process that lives as long as the tests",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What exists at one moment. Each field maps a key that identifies the thing to text that describes it."""

    processes: dict[tuple[int, float], str]
    mounts: dict[str, str]
    cgroups: dict[str, str]
    files: dict[str, str]
    descriptors: dict[tuple[int, str], str]

    def new_since(self, before: Snapshot) -> list[str]:
        """One line per thing that is here and was not there before."""
        return [
            f"{field.name}: {text}"
            for field in fields(self)
            for key, text in getattr(self, field.name).items()
            if key not in getattr(before, field.name)
        ]


def snapshot() -> Snapshot:
    """Everything countable, now."""
    return Snapshot(_processes(), _mounts(), _cgroups(), _files(), _descriptors())


@contextlib.contextmanager
def assert_nothing_left(patience_s: float = 5.0) -> Iterator[None]:
    """Fail when the block leaves anything behind that was not there before it."""
    before = snapshot()
    yield
    left = wait_until_gone(before, patience_s)
    assert not left, "left behind:\n  " + "\n  ".join(left)


def wait_until_gone(before: Snapshot, patience_s: float) -> list[str]:
    """What is still there on top of `before` after at most this many seconds."""
    end = time.monotonic() + patience_s
    while (left := snapshot().new_since(before)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that a process that forked twice is seen too."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _processes() -> dict[tuple[int, float], str]:
    """Every descendant but spares. A zombie directly below us is not counted: it may be one that adopt_orphans gave us."""
    found = {}
    here = os.getpid()
    descendants = psutil.Process().children(recursive=True)
    spares = _spares(descendants)
    for process in descendants:
        if process.pid in spares:
            continue
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
            status = process.status()
            if status == psutil.STATUS_ZOMBIE and process.ppid() == here:
                if process.name() in ("fxcell-super", "fxcell-worker"):  # adopted, and nobody else's to wait for
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(process.pid, os.WNOHANG)
                continue
            command = "" if status == psutil.STATUS_ZOMBIE else " ".join(_command_line(process))[:160]
            text = f"pid {process.pid} {process.name()} ({status}, parent {process.ppid()}) {command}"
            found[process.pid, process.create_time()] = text
    return found


def _spares(processes: list[psutil.Process]) -> set[int]:
    """The one supervisor and worker that each living template keeps ahead of need: the newest that no session has.

    A second pair counts. Sessions are asked for, because a template makes its spare a moment after it gave one away.
    """
    spares: set[int] = set()
    registry = sys.modules.get("fxcell.host.registry")
    given = set() if registry is None else {session.pid for session in registry._living()}
    # Not psutil's children(), which reads every process of the machine each time: a run keeps some dozen templates.
    below: dict[int, list[psutil.Process]] = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            below.setdefault(process.ppid(), []).append(process)
    for template in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisors = [child for child in below.get(template.pid, []) if child.pid not in given]
            if supervisors and template.name() == "fxcell-template":
                newest = max(supervisors, key=lambda process: (process.create_time(), process.pid))
                spares |= {newest.pid, *(child.pid for child in _all_below(newest.pid, below))}
    return spares


def _all_below(pid: int, below: dict[int, list[psutil.Process]]) -> list[psutil.Process]:
    children = below.get(pid, [])
    return [*children, *(deeper for child in children for deeper in _all_below(child.pid, below))]


def _command_line(process: psutil.Process) -> list[str]:
    """Arguments, or none: /proc/PID of a process that is not dumpable is closed to an ordinary user."""
    try:
        return process.cmdline()
    except psutil.AccessDenied:
        return ["(command line not readable)"]


def _mounts() -> dict[str, str]:
    """Mounts of this process's namespace, by mount id and target."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        found[f"{words[0]} {words[4]}"] = f"{words[4]} ({' '.join(words[words.index('-') + 1 :])})"
    return found


def _own_groups() -> dict[str, str]:
    """Controller -> the group of this process; "" is version 2."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return {controller: path for _, controllers, path in lines for controller in controllers.split(",")}


_OWN_GROUPS = _own_groups()
"""As they were before a host in this process could move: only below them can it make groups."""


def _spare_groups() -> set[str]:
    """The directories of the one group that each living template keeps ahead of need, for its spare worker."""
    templates = sys.modules.get("fxcell.host.templates")
    kept = [] if templates is None else list(templates._templates.values())
    return {path for template in kept if template.spare_group is not None for path in template.spare_group.paths}


def _cgroups() -> dict[str, str]:
    """Every directory named fxcell* below the groups this process started in, for memory and tasks: v1, v2; but spares'."""
    found = {}
    spares = _spare_groups()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        kind, _, options = words[words.index("-") + 1 :][:3]
        controllers = {""} if kind == "cgroup2" else {"memory", "pids"} & set(options.split(","))
        if kind in ("cgroup", "cgroup2") and controllers:
            own = _OWN_GROUPS.get(controllers.pop(), "/").removeprefix("" if words[3] == "/" else words[3])
            for parent, folders, _ in os.walk(words[4] + own):
                for name in folders:
                    own_name = name.startswith("fxcell") and not _belongs_to_another(name) and name != _OWN_LEAF
                    if own_name and os.path.join(parent, name) not in spares:
                        found[os.path.join(parent, name)] = os.path.join(parent, name)
    return found


def _files() -> dict[str, str]:
    """Every name fxcell* in the folders for temporary files."""
    found = {}
    for folder in {tempfile.gettempdir(), "/dev/shm"}:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if entry.name.startswith("fxcell") and not _belongs_to_another(entry.name):
                    found[entry.path] = entry.path
    return found


def _belongs_to_another(name: str) -> bool:
    """True when the name carries the pid of a live process that is neither this one nor below it."""
    match = _OWNER.match(name)
    if match is None or int(match[1]) == os.getpid():
        return False
    try:  # upwards, for downwards psutil reads every process of the machine, and this is asked for each name
        return os.getpid() not in (parent.pid for parent in psutil.Process(int(match[1])).parents())
    except psutil.NoSuchProcess:
        return False


def _descriptors() -> dict[tuple[int, str], str]:
    """Open descriptors of this process but its standard streams, by number and what they point to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one listdir itself used is closed by now
            target = os.readlink(f"/proc/self/fd/{name}")
            # 0 to 2 are pytest's to capture: they lead elsewhere when it ends early.
            if int(name) > 2 and target not in KEPT_BY_LIBRARIES:
                found[int(name), target] = f"{name} -> {target}"
    return found
