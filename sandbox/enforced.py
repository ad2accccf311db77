"""Enforced: what a worker reads back after its lockdown, and the host's check of it.

Every layer is read back or tried, not remembered: the report says what holds, not what was asked for.
"""

from __future__ import annotations

import array
import errno
import os
import resource
import select
import socket
from typing import Any

import msgspec

from fxcell.policies.errors import InternalError, IsolationUnavailable
from fxcell.policies.limits import Limits
from fxcell.sandbox import wire
from fxcell.sandbox.kernel import privileges, rlimits
from fxcell.sandbox.plan import Plan
from fxcell.sandbox.syscalls import CHANNEL_FD, STACK_FD

NAMESPACES = ("user", "mount", "pid", "net", "ipc", "uts", "cgroup")
_LIMITS = ("core_bytes", "data_bytes", "file_bytes", "open_files", "stack_bytes", "processes")


def send_listener(line: socket.socket, listener: int, *, await_answer: bool = False) -> None:
    """Hand the seccomp listener to the supervisor and keep no way back to it.

    await_answer: wait until the supervisor has set from outside what it sets (one byte comes).
    Raises:       OSError - it could not be sent; ConnectionError - the supervisor is gone.
    """
    # Closed whatever happens: as long as this process holds it, a call that the listener must answer would wait for ever.
    try:
        with line:
            _send_one(line, listener)
            os.close(listener)
            listener = -1
            if await_answer and not line.recvmsg(1)[0]:
                raise ConnectionError("the supervisor ended")
    finally:
        if listener >= 0:
            os.close(listener)


def _send_one(line: socket.socket, descriptor: int) -> None:
    while True:
        try:
            line.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        except OSError as error:
            # Descriptors of other processes of this user, which may go; the host gives up on this one at its deadline.
            if error.errno != errno.ETOOMANYREFS:
                raise
            wire.pause(wire.IN_FLIGHT_RETRY_S)
        else:
            return


def receive_listener(line: socket.socket) -> int | None:
    """The supervisor's side of send_listener; None when the worker ended first."""
    _, ancillary, _, _ = line.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for _level, _kind, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % 4])
    return fds[0] if fds else None


def observe(plan: Plan, spaces: dict[str, int]) -> dict[str, Any]:
    """What holds in this process now, but for seccomp, which would not let all of this be asked: layer -> values.

    spaces: the namespaces this process is in, read while /proc could still be reached.
    """
    report: dict[str, Any] = {
        "limits": {kind: rlimits.get_limit(kind) for kind in _LIMITS},
        "hygiene": {"environment": sorted(os.environ)},
    }
    if plan.namespaces:
        report["namespaces"] = {**spaces, "pid_inside": os.getpid()}
        writable = not os.statvfs("/").f_flag & os.ST_RDONLY
        report["minimal_root"] = {"proc_visible": os.path.lexists("/proc"), "root_writable": writable}
    if plan.filtered:
        report["privileges"] = {
            "capabilities": privileges.held_capabilities(),
            "no_new_privs": privileges.has_no_new_privs(),
            "dumpable": privileges.is_dumpable(),
            "ids": [*os.getresuid(), *os.getresgid()],
        }
        report["landlock"] = {"abi": plan.landlock_abi, "listing_root": _errno_of_listing_root()}
    return report


def encoded(plan: Plan, report: dict[str, Any]) -> bytes:
    """The report with what is left open and what the filter answers now, as a MessagePack table."""
    report["hygiene"]["descriptors"] = _open_descriptors()
    report["limits"]["open_files"] = rlimits.get_limit("open_files")
    if plan.filtered:
        report["seccomp"] = {"socket": _errno_of_socket()}
    return msgspec.msgpack.encode(report)


def _open_descriptors() -> list[int]:
    # One call for all: poll(2) marks descriptors that are not open.
    poller = select.poll()
    count = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)
    for descriptor in range(count):
        poller.register(descriptor, 0)
    closed = {descriptor for descriptor, event in poller.poll(0) if event & select.POLLNVAL}
    return [descriptor for descriptor in range(count) if descriptor not in closed]


def _errno_of_listing_root() -> str:
    # Allowed by the mode of the directory: only Landlock can refuse it.
    try:
        os.listdir("/")
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""


def _errno_of_socket() -> str:
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""


def check(
    plan: Plan, limits: Limits, data: bytes, *, outside: dict[str, int], in_memory_cgroup: bool
) -> tuple[str, ...]:
    """Compare a worker's report with what the plan promises; answer the layers enforced.

    outside: the host's own namespaces, none of which the worker may be in.
    Raises:  IsolationUnavailable - a layer is not in force; InternalError - the report is not one.
    """
    try:
        report = msgspec.msgpack.decode(data, type=dict[str, dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise InternalError(f"a worker's Enforced report is malformed: {error}") from error
    if set(report) != set(plan.layers):
        _refuse(
            ",".join(set(plan.layers) ^ set(report)) or "layers",
            f"the worker reports {sorted(report)}, planned were {sorted(plan.layers)}",
        )
    _expect("hygiene", report["hygiene"]["descriptors"], [0, 1, 2, CHANNEL_FD, STACK_FD])
    set_limits = report["limits"]
    _expect("limits", set_limits["core_bytes"], 0)
    for kind, most in (
        ("data_bytes", limits.memory_bytes * (4 if in_memory_cgroup else 1)),
        ("open_files", limits.open_files),
        ("file_bytes", max(limits.file_bytes, limits.message_bytes)),
    ):
        if not 0 <= set_limits[kind] <= most:
            _refuse("limits", f"{kind} is {set_limits[kind]}, at most {most} was planned")
    if plan.namespaces:
        _check_namespaces(report, outside)
    if plan.filtered:
        _check_filtered(report)
    return plan.layers


def decoded(data: bytes) -> dict[str, dict[str, Any]]:
    """A report that `check` has accepted: layer -> what the worker read back."""
    return msgspec.msgpack.decode(data, type=dict[str, dict[str, Any]])


def _check_namespaces(report: dict[str, dict[str, Any]], outside: dict[str, int]) -> None:
    spaces = report["namespaces"]
    for name, inode in outside.items():
        if spaces.get(name) in (None, inode):
            _refuse("namespaces", f"the worker is in the host's own {name} namespace")
    _expect("namespaces", spaces["pid_inside"], 2)
    _expect("minimal_root", report["minimal_root"], {"proc_visible": False, "root_writable": False})


def _check_filtered(report: dict[str, dict[str, Any]]) -> None:
    held = report["privileges"]
    _expect(
        "privileges",
        {key: held[key] for key in ("capabilities", "no_new_privs", "dumpable")},
        {"capabilities": 0, "no_new_privs": True, "dumpable": False},
    )
    if 0 in held["ids"]:
        _refuse("privileges", f"the worker's ids are {held['ids']}")
    _expect("landlock", report["landlock"]["listing_root"], "EACCES")
    _expect("seccomp", report["seccomp"]["socket"], "EPERM")


def _expect(layer: str, found: object, wanted: object) -> None:
    if found != wanted:
        _refuse(layer, f"the worker reads back {found!r}, {wanted!r} was planned")


def _refuse(layer: str, cause: str) -> None:
    raise IsolationUnavailable(
        layer, cause, "report it with the output of `fxcell --version` and your kernel's version"
    )
