"""Raw system calls by number, with errno turned into KernelRefused."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

from fxcell.policies.errors import KernelRefused

# PyDLL: the interpreter lock is kept, so that `clone` copies a process whose only thread holds it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

MACHINE = platform.machine()

# Only calls without a libc wrapper that Debian 12 (glibc 2.36) has. Numbers from 424 on are the same on every architecture.
_NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {"clone": 56, "pivot_root": 155, "seccomp": 317, "prctl": 157, "tgkill": 234},
    "aarch64": {"clone": 220, "pivot_root": 41, "seccomp": 277, "prctl": 167, "tgkill": 131},
}
_COMMON_NUMBERS = {
    "pidfd_send_signal": 424,
    "clone3": 435,
    "close_range": 436,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}


def number(name: str) -> int:
    """The number of a system call on this machine. Raises KeyError for an architecture or call not in the table."""
    return _COMMON_NUMBERS.get(name) or _NUMBERS[MACHINE][name]


def syscall(step: str, name: str, *arguments: object) -> int:
    """Make a system call; answer its result.

    step: what the caller attempts, for the error text.
    Raises: KernelRefused(step, errno).
    """
    result: int = _libc.syscall(number(name), *arguments)
    if result == -1:
        raise KernelRefused(step, ctypes.get_errno(), name)
    return result


def syscall_errno(name: str, *arguments: object) -> int:
    """Make a system call that is expected to be refused; answer its errno, or 0."""
    result: int = _libc.syscall(number(name), *arguments)
    return ctypes.get_errno() if result == -1 else 0


def wrapped(step: str, name: str, *arguments: object) -> int:
    """Call a libc wrapper that answers -1 and sets errno.

    Raises: KernelRefused(step, errno).
    """
    result: int = getattr(_libc, name)(*arguments)
    if result == -1:
        raise KernelRefused(step, ctypes.get_errno(), name)
    return result


def attempt(name: str, *arguments: object) -> None:
    """Call a libc wrapper whose refusal changes nothing but the speed."""
    getattr(_libc, name)(*arguments)


def path(value: str) -> bytes:
    """A path as the kernel takes it. Raises ValueError for a NUL byte, which would silently shorten it."""
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"path {value!r} holds a NUL byte")
    return encoded
