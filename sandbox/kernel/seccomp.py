"""Loading a compiled seccomp filter with a listener, and reading what the listener hears. seccomp(2)."""

from __future__ import annotations

import ctypes
import fcntl
import struct
from dataclasses import dataclass

from fxcell.sandbox.kernel import libc

_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_FLAG_NEW_LISTENER = 1 << 3
_RESPONSE_CONTINUE = 1
_ACTION_USER_NOTIFY = 0x7FC00000
_IOCTL_NOTIF_RECV, _IOCTL_NOTIF_SEND = 0xC0502100, 0xC0182101
_RESPONSE = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, value, error, flags."""
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, instruction pointer, six arguments."""

FILTER_INSTRUCTIONS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Notification:
    """A system call that waits for the listener's answer, as the kernel copied it from registers."""

    id: int
    thread_id: int
    number: int
    architecture: int
    arguments: tuple[int, ...]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def can_notify() -> bool:
    """True when the kernel knows user notification (Linux 5.0)."""
    action = ctypes.c_uint32(_ACTION_USER_NOTIFY)
    return libc.syscall_errno("seccomp", _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def install_filter(program: bytes) -> int:
    """Attach a compiled filter to the calling thread; answer the listener's descriptor. It cannot be removed.

    program: whole number of 8-byte BPF instructions, at most FILTER_INSTRUCTIONS_MAX of them.
    Before:  no_new_privs is set; the process has one thread.
    After:   every later system call of this process is filtered, children included.
    Raises:  KernelRefused - EINVAL: malformed program; EACCES: no_new_privs missing; EBUSY: there is a listener already.
    Source:  seccomp(2), Linux 5.0.
    """
    if len(program) % 8 or not 0 < len(program) // 8 <= FILTER_INSTRUCTIONS_MAX:
        raise ValueError(
            f"a filter of {len(program)} bytes is not 1 to {FILTER_INSTRUCTIONS_MAX} instructions of 8 bytes"
        )
    argument = _Program(len(program) // 8, program)
    return libc.syscall(
        "install the seccomp filter", "seccomp", _SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.byref(argument)
    )


def receive(listener: int) -> Notification:
    """Read the next waiting system call. Blocks; raises OSError(ENOENT) when the caller died meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)
    fcntl.ioctl(listener, _IOCTL_NOTIF_RECV, buffer)
    ident, thread_id, _flags, number, architecture, _pointer, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(ident, thread_id, number, architecture, tuple(arguments))


def let_through(listener: int, notification: Notification) -> None:
    """Let the waiting system call go on, with the registers that were shown. Raises OSError(ENOENT) as `refuse`.

    Only for decisions on registers: what pointers point to can be changed meanwhile.
    Source: seccomp_unotify(2), SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5.
    """
    fcntl.ioctl(listener, _IOCTL_NOTIF_SEND, _RESPONSE.pack(notification.id, 0, 0, _RESPONSE_CONTINUE))


def refuse(listener: int, notification: Notification, number: int) -> None:
    """Let the waiting system call fail with this errno. Raises OSError(ENOENT) when the caller died meanwhile."""
    fcntl.ioctl(listener, _IOCTL_NOTIF_SEND, _RESPONSE.pack(notification.id, 0, -number, 0))
