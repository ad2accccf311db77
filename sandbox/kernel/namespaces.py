"""Namespaces: what a process sees of users, processes, mounts, network, IPC, host name and cgroups."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable

from fxcell.policies.errors import KernelRefused
from fxcell.sandbox.kernel import libc

# linux/sched.h
FLAGS = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}


def _mask(names: Iterable[str]) -> int:
    mask = 0
    for name in names:
        mask |= FLAGS[name]
    return mask


def fork_into(names: Iterable[str]) -> int:
    """Fork into new namespaces: 0 in the child, the child's pid in the parent.

    Before:  this process is single-threaded and holds no lock that the child needs.
    After:   a new pid namespace has the child as its process 1.
    Note:    libc's idea of the thread id is stale in the child (clone without CLONE_CHILD_SETTID), so the child must
             not raise signals at itself by libc; its own os.fork() children are right again.
    Raises:  KernelRefused - EPERM: namespaces are denied here (sysctl, AppArmor, a container's seccomp filter);
             ENOSPC/EUSERS: user.max_*_namespaces reached.
    Source:  clone(2), user_namespaces(7).
    """
    flags = ctypes.c_ulong(_mask(names) | signal.SIGCHLD)
    return libc.syscall(f"fork into new {' '.join(names)} namespaces", "clone", flags, 0, 0, 0, 0)


def unshare(names: Iterable[str]) -> None:
    """Move this process into new namespaces (a new pid namespace holds only its later children).

    Raises: KernelRefused, as fork_into. Source: unshare(2).
    """
    libc.wrapped(f"unshare {' '.join(names)} namespaces", "unshare", _mask(names))


def map_self(*, inside_id: int, outside_uid: int, outside_gid: int, proc: int | None = None) -> None:
    """Map one user and one group id into the user namespace this process has just entered.

    proc:    descriptor of a /proc directory, for a process whose root has none.
    Before:  the process is dumpable: /proc/self/uid_map belongs to root otherwise.
    Source:  user_namespaces(7); setgroups must be denied first since Linux 3.19.
    """
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside_id} {outside_uid} 1"),
        ("gid_map", f"{inside_id} {outside_gid} 1"),
    ):
        _write(f"/proc/self/{name}" if proc is None else f"self/{name}", text, proc)


def map_for(pid: int, ids: dict[int, int]) -> None:
    """Map ids (inside -> outside) into the user namespace that process `pid` has entered, as user and as group ids.

    Before:  this process has CAP_SETUID and CAP_SETGID in the parent user namespace.
    """
    text = "\n".join(f"{inside} {outside} 1" for inside, outside in ids.items())
    for name in ("uid_map", "gid_map"):
        _write(f"/proc/{pid}/{name}", text, None)


def _write(path: str, text: str, folder: int | None) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelRefused(f"write {text!r} to {path}", error.errno or 0, "write") from error


def identities(names: Iterable[str], proc: int | None = None) -> dict[str, int]:
    """Which namespaces this process is in: name -> inode number, as /proc/self/ns shows it."""
    found = {}
    for name in names:
        file = {"mount": "mnt"}.get(name, name)
        found[name] = os.stat(f"/proc/self/ns/{file}" if proc is None else f"self/ns/{file}", dir_fd=proc).st_ino
    return found


def set_host_name(name: str) -> None:
    """Name the host of this UTS namespace."""
    encoded = name.encode()
    libc.wrapped("set the host name", "sethostname", encoded, ctypes.c_size_t(len(encoded)))
