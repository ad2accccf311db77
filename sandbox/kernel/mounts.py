"""Mounts: the pieces a minimal root is built from."""

from __future__ import annotations

import os
import struct

from fxcell.sandbox.kernel import libc

# linux/mount.h
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000


def make_private() -> None:
    """Stop mount events from travelling between this mount namespace and the one it was copied from."""
    libc.wrapped("make all mounts private", "mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)


def tmpfs(target: str, *, size_bytes: int, files: int, mode: int, flags: int) -> None:
    """Mount an empty file system in memory with at most size_bytes and `files` inodes."""
    options = f"size={size_bytes},nr_inodes={files},mode={mode:o}".encode()
    libc.wrapped(
        f"mount a tmpfs of {size_bytes} bytes on {target}",
        "mount",
        b"tmpfs",
        libc.path(target),
        b"tmpfs",
        flags,
        options,
    )


def bind(source: int, target: str) -> None:
    """Show the tree or file behind the descriptor `source` at `target`, with everything mounted below it, all read-only.

    source: O_PATH descriptor opened in this mount namespace; a path could be hidden by what was mounted since.
    Note:   mount(2) restricts only the topmost mount of a recursive bind; mount_setattr(2) (Linux 5.12) reaches them all,
            and keeps the flags that a user namespace may not clear.
    """
    place = f"/proc/self/fd/{source}".encode()
    libc.wrapped(f"bind onto {target}", "mount", place, libc.path(target), None, _BIND | _RECURSIVE, None)
    attributes = struct.pack("=QQQQ", READ_ONLY | NO_SUID | NO_DEVICES, 0, 0, 0)
    libc.syscall(
        f"make {target} read-only",
        "mount_setattr",
        _AT_FDCWD,
        libc.path(target),
        _AT_RECURSIVE,
        attributes,
        len(attributes),
    )


def bind_device(source: int, target: str) -> None:
    """Show a device node at `target`; NO_DEVICES would make it unusable, so only set-user-id is taken."""
    place = f"/proc/self/fd/{source}".encode()
    libc.wrapped(f"bind a device onto {target}", "mount", place, libc.path(target), None, _BIND, None)
    attributes = struct.pack("=QQQQ", NO_SUID | NO_EXEC, 0, 0, 0)
    libc.syscall(f"restrict {target}", "mount_setattr", _AT_FDCWD, libc.path(target), 0, attributes, len(attributes))


def remount_read_only(target: str) -> None:
    """Make one mount read-only for everybody in this mount namespace."""
    flags = _REMOUNT | _BIND | READ_ONLY | NO_SUID | NO_DEVICES
    libc.wrapped(f"make {target} read-only", "mount", None, libc.path(target), None, flags, None)


def pivot_into(new_root: str) -> None:
    """Make new_root the root of this process and let go of the old one completely.

    Before:  new_root is a mount point, mounts are private.
    After:   no path and no mount of the old root can be reached.
    Source:  pivot_root(2), the `pivot_root(".", ".")` form.
    """
    os.chdir(new_root)
    libc.syscall(f"pivot_root into {new_root}", "pivot_root", b".", b".")
    libc.wrapped("detach the old root", "umount2", b".", _DETACH)
    os.chdir("/")
