"""What this kernel offers, found by trying: plain data that plan() decides on.

Runs in the template process before anything is restricted. Namespaces with the minimal root, and a filter with its
listener, are tried as whole sequences in children that end at once, because each step alone can succeed where the sequence
fails (AppArmor lets the user namespace be made and then refuses the mount; below a filter that has a listener already, the
kernel knows user notification and yet refuses a second one).
"""

from __future__ import annotations

import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fxcell.policies.errors import KernelRefused
from fxcell.sandbox import root
from fxcell.sandbox.kernel import landlock, libc, namespaces, privileges, seccomp
from fxcell.sandbox.view import View

TEMPLATE_NAMESPACES = ("user", "mount", "net", "ipc", "uts", "cgroup")
WORKER_NAMESPACES = ("user", "mount", "pid")
"""A worker's very own. The rest it shares with workers of the same policy: without sockets, System V IPC, message queues
and capabilities there is nothing in them to share."""
_INSIDE_ID = 65534
_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
"""The shortest filter there is: `ret ALLOW`."""
_OWN_ID_BASE = 0x70000000
"""Above the ids that distributions hand out to users and containers (systemd: up to 0x6fffffff)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found. landlock_abi: 0 for none. namespaces_error, listener_error: "" when the whole sequence worked.

    outside_uid: the user that workers are for everybody outside: the caller's own, or for root one that nobody else has.
    """

    system: str
    machine: str
    kernel: str
    python: str
    uid: int
    outside_uid: int
    landlock_abi: int
    seccomp_notify: bool
    namespaces_error: str
    listener_error: str = ""

    def to_data(self) -> dict[str, Any]:
        """The probe as a plain table."""
        return asdict(self)


def look() -> Probe:
    """Try what the layers need. Leaves nothing behind."""
    return Probe(
        system=sys.platform,
        machine=platform.machine(),
        kernel=platform.release(),
        python=platform.python_version(),
        uid=os.geteuid(),
        outside_uid=_outside_uid(),
        landlock_abi=landlock.abi_version(),
        seccomp_notify=seccomp.can_notify(),
        namespaces_error=_try(_sequence, "use a new user namespace"),
        listener_error=_try(_listen, "use a seccomp filter"),
    )


def _outside_uid() -> int:
    """For root an id of its own, so that no other process of the machine shares it; else the caller's. 0: cannot be had."""
    if os.geteuid() != 0:
        return os.geteuid()
    if not privileges.can_change_ids():
        return 0
    wanted = _OWN_ID_BASE + os.getpid()
    fallback = 0
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            first, _, count = map(int, line.split())
            if first <= wanted < first + count:
                return wanted
            fallback = max(fallback, first + count - 1)
    return fallback


def _try(steps: Callable[[], str], what: str) -> str:
    """The refused step in words, or "" when a child got through all of them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = steps()
        except KernelRefused as error:
            text = str(error)
        except OSError as error:
            text = f"could not {what}: {error}"
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode()[:2000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    return text if text or status == 0 else f"the trial process ended with status {status}"


def _sequence() -> str:
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(TEMPLATE_NAMESPACES)
    namespaces.map_self(inside_id=_INSIDE_ID, outside_uid=uid, outside_gid=gid)
    # /proc is out of reach below the new root, as it is for workers: the way to it is opened before.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    root.enter_minimal_root(View((os.path.realpath(sysconfig.get_path("stdlib")),), (), (), ("/dev/null",)))
    namespaces.set_host_name("trial")
    grandchild = namespaces.fork_into(WORKER_NAMESPACES)
    if grandchild == 0:
        code = 2
        try:
            namespaces.map_self(inside_id=_INSIDE_ID, outside_uid=_INSIDE_ID, outside_gid=_INSIDE_ID, proc=proc)
            code = 0 if os.getpid() == 1 else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(grandchild, 0)
    return {0: "", 1: "a process in a new pid namespace was not its process 1"}.get(
        os.waitstatus_to_exitcode(status), "a process in a second user namespace could not map its user"
    )


def _listen() -> str:
    privileges.set_no_new_privs()
    seccomp.install_filter(_ALLOW_ALL)
    return ""


def supported_machine() -> bool:
    """True for the architectures whose system calls are tabled."""
    return libc.MACHINE in ("x86_64", "aarch64")
