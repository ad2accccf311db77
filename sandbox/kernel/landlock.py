"""Landlock: file, network and scope restrictions that a process puts on itself for good. landlock(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from fxcell.sandbox.kernel import libc

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FS_ABI_1 = (1 << 13) - 1
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NET_TCP = 0b11
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2

READ = READ_FILE | READ_DIR
SCRATCH = READ | WRITE_FILE | TRUNCATE | REFER | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 12)
"""Read, write, remove_dir, remove_file, make_dir, make_reg, make_sym: no execute, devices, sockets or FIFOs."""


@dataclass(frozen=True, slots=True)
class Abi:
    """What one version of the interface can handle."""

    version: int
    kernel: str
    fs: int
    net: int
    scoped: int


ABIS = (
    Abi(1, "5.13", _FS_ABI_1, 0, 0),
    Abi(2, "5.19", _FS_ABI_1 | REFER, 0, 0),
    Abi(3, "6.2", _FS_ABI_1 | REFER | TRUNCATE, 0, 0),
    Abi(4, "6.7", _FS_ABI_1 | REFER | TRUNCATE, _NET_TCP, 0),
    Abi(5, "6.10", _FS_ABI_1 | REFER | TRUNCATE | IOCTL_DEV, _NET_TCP, 0),
    Abi(6, "6.12", _FS_ABI_1 | REFER | TRUNCATE | IOCTL_DEV, _NET_TCP, _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL),
)
"""Newer versions than the last (7: audit flags, 6.15) add nothing that this project handles."""


def abi_version() -> int:
    """The version the kernel offers; 0 when Landlock is absent or switched off at boot."""
    try:
        return libc.syscall(
            "ask for Landlock's version", "landlock_create_ruleset", None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION
        )
    except Exception:  # noqa: BLE001 - any refusal means that it cannot be used
        return 0


def abi(version: int) -> Abi:
    """The table row for what the kernel offers. Raises ValueError below 1."""
    if version < 1:
        raise ValueError("the kernel has no Landlock")
    return ABIS[min(version, len(ABIS)) - 1]


def restrict_self(rules: Iterable[tuple[str, int]], offered: Abi) -> None:
    """Allow file access only as `rules` say, no TCP bind or connect, no abstract sockets or signals to the outside.

    rules:   (existing path, access bits); bits the kernel does not know are left out, a path that cannot be opened is an error.
    Before:  no_new_privs; the process is single-threaded (the calling thread only is restricted before ABI 8).
    After:   holds for this process and its children, and cannot be lifted.
    Raises:  KernelRefused, OSError for a rule path.
    """
    attributes = struct.pack("=QQQ", offered.fs, offered.net, offered.scoped)
    size = 8 if not offered.net else 16 if not offered.scoped else 24
    ruleset = libc.syscall(
        "create a Landlock ruleset", "landlock_create_ruleset", attributes[:size], ctypes.c_size_t(size), 0
    )
    try:
        for path, access in rules:
            _allow(ruleset, path, access & offered.fs)
        libc.syscall("apply the Landlock ruleset", "landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            access &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
        rule = struct.pack("=Qi", access, descriptor)
        libc.syscall(f"allow {path} in Landlock", "landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
