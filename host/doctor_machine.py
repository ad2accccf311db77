"""What the machine is, beside the layers: rows for `fxcell doctor`, each from one question that may fail by itself."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fxcell.host import cgroups, doctor_fixes, template_process
from fxcell.sandbox.probe import Probe


class State(StrEnum):
    """HOLDS: a worker read it back.   MISSING: it cannot be had.   WEAKER: something else stands in for it, which is said.

    OFF: the policy does not ask for it.   UNPROVEN: no worker could be started with it.   NOTE: a fact about the machine.
    ERROR: the question itself failed.
    """

    HOLDS = "holds"
    MISSING = "missing"
    WEAKER = "weaker"
    OFF = "off"
    UNPROVEN = "unproven"
    NOTE = "note"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Row:
    """One finding. group: layer, machine or policy. cause: the kernel's answer. fix: what to do, one or more lines."""

    group: str
    name: str
    needs: str
    state: State
    found: str = ""
    cause: str = ""
    fix: str = ""


_TOO_OLD = {"pycapnp": ((2, 2, 4), "older ones can be made to crash the host by a malformed message")}


def _kernel(probe: Probe | None) -> Iterator[Row]:
    good = probe is None or probe.machine in ("x86_64", "aarch64")
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    fix = "" if good else "use an x86_64 or aarch64 machine"
    yield Row(
        "machine",
        "kernel",
        "Linux 5.13 or newer, x86_64 or aarch64",
        State.NOTE if good else State.MISSING,
        found,
        fix=fix,
    )


def _memory(_probe: Probe | None) -> Iterator[Row]:
    yield from _controller("memory", "the limit counts private memory of each process by itself (RLIMIT_DATA)")


def _tasks(_probe: Probe | None) -> Iterator[Row]:
    yield from _controller("pids", "the limit on tasks is RLIMIT_NPROC of the worker's user namespace, if it has one")


def _controller(controller: str, otherwise: str) -> Iterator[Row]:
    name, needs = f"cgroup {controller}", f"a cgroup with the {controller} controller that this user may divide"
    place = cgroups.places().get(controller)
    if place is not None:
        yield Row("machine", name, needs, State.HOLDS, f"version {place.version}, groups are made in {place.folder}")
        return
    causes = dict(line.partition(": ")[::2] for line in cgroups.missing().partition("\n")[0].split("; "))
    cause = causes.get(controller) or cgroups.missing().partition("\n")[0]
    yield Row("machine", name, needs, State.WEAKER, otherwise, cause, cgroups.FIX)


def _landlock(probe: Probe | None) -> Iterator[Row]:
    if probe is None:
        return
    modules = _read("/sys/kernel/security/lsm")
    found = f"version {probe.landlock_abi}" + (f"; security modules: {modules}" if modules else "")
    state = State.NOTE if probe.landlock_abi else State.MISSING
    fix = "" if probe.landlock_abi else doctor_fixes.LANDLOCK
    yield Row(
        "machine",
        "Landlock ABI",
        "1 or higher; 6 (Linux 6.12) covers everything fxcell asks for",
        state,
        found,
        fix=fix,
    )


def _notification(probe: Probe | None) -> Iterator[Row]:
    if probe is None:
        return
    good = probe.seccomp_notify and not probe.listener_error
    cause = probe.listener_error or ("" if good else "the kernel does not know the action")
    own = re.search(r"^Seccomp:\s*(\d)", _read("/proc/self/status"), re.MULTILINE)
    found = (
        "a filter of somebody else's already holds for this process"
        if own and own[1] == "2"
        else "no other filter here"
    )
    fix = "" if good else doctor_fixes.by_layer("seccomp", probe)
    yield Row(
        "machine", "seccomp listener", "user notification", State.NOTE if good else State.MISSING, found, cause, fix
    )


def _user(probe: Probe | None) -> Iterator[Row]:
    found = f"user {os.geteuid()}, group {os.getegid()}"
    if probe is not None and probe.outside_uid != os.geteuid():
        found += f"; workers are user {probe.outside_uid} for everybody outside"
    if os.geteuid() == 0 and probe is not None and probe.outside_uid == 0:
        cause = "root here has no other user id to give to workers"
        fix = "start the host as an ordinary user, or give it CAP_SETUID and CAP_SETGID"
        yield Row("machine", "user", "", State.WEAKER, found, cause, fix)
        return
    yield Row("machine", "user", "", State.NOTE, found)


def _container(_probe: Probe | None) -> Iterator[Row]:
    hints = doctor_fixes.container_hints()
    yield Row("machine", "container", "", State.NOTE, ", ".join(hints) if hints else "no sign of one")


def _processors(_probe: Probe | None) -> Iterator[Row]:
    count = len(os.sched_getaffinity(0))
    spins = (
        "a waiting side spins for a moment before it sleeps"
        if template_process.spinning_helps()
        else "no spinning on one processor"
    )
    yield Row("machine", "processors", "", State.NOTE, f"{count}: {spins}")


def _python(_probe: Probe | None) -> Iterator[Row]:
    yield Row(
        "machine",
        "Python",
        "3.11 or newer",
        State.NOTE,
        f"{platform.python_version()}, {os.path.realpath(sys.executable)}",
    )


def _libraries(_probe: Probe | None) -> Iterator[Row]:
    versions = {name: importlib.metadata.version(name) for name in ("pycapnp", "pyseccomp", "python-prctl", "msgspec")}
    versions["libseccomp"] = _libseccomp()
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    for name, (least, why) in _TOO_OLD.items():
        if tuple(int(part) for part in re.findall(r"\d+", versions[name])[:3]) < least:
            wanted = ".".join(map(str, least))
            yield Row(
                "machine", "libraries", "", State.MISSING, found, f"{name}: {why}", f"pip install '{name}>={wanted}'"
            )
            return
    yield Row("machine", "libraries", "", State.NOTE, found)


def _libseccomp() -> str:
    import pyseccomp

    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    ask = pyseccomp._libseccomp.seccomp_version
    ask.restype = ctypes.POINTER(Version)
    version = ask().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def _read(path: str) -> str:
    return doctor_fixes.read(path)


QUESTIONS: Mapping[str, Callable[[Probe | None], Iterator[Row]]] = {
    "kernel": _kernel,
    "cgroup memory": _memory,
    "cgroup pids": _tasks,
    "Landlock ABI": _landlock,
    "seccomp listener": _notification,
    "user": _user,
    "container": _container,
    "processors": _processors,
    "Python": _python,
    "libraries": _libraries,
}
"""Name -> the question; each answers rows for the probe, which is None where no worker could be started at all."""
