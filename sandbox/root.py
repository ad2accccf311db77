"""Building the minimal root: an empty file system in memory that shows a View read-only, and nothing else."""

from __future__ import annotations

import os
import stat

from fxcell.policies.errors import KernelRefused
from fxcell.sandbox.kernel import mounts
from fxcell.sandbox.view import View

_BASE = "/tmp"
"""Where the new root is put together, in a mount namespace of our own: any directory that exists would do."""

_ROOT_BYTES, _ROOT_FILES = 1024 * 1024, 4096


def scratch_folder(view: View) -> str:
    """Where a worker's private scratch space is mounted: /tmp, unless the view itself shows something below /tmp."""
    return "/scratch" if any(path.startswith("/tmp/") for path in view.trees) else "/tmp"


def enter_minimal_root(view: View) -> None:
    """Make a new root that holds the view, and let go of the old one.

    Before:  a mount namespace of our own, CAP_SYS_ADMIN in its user namespace, /proc mounted.
    After:   no path of the old root can be reached, /proc included; descriptors opened before still work.
    Raises:  KernelRefused, OSError.
    """
    mounts.make_private()
    # Opened first: putting the base in place may hide what lies below it.
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*view.trees, *view.devices)}
    try:
        mounts.tmpfs(
            _BASE, size_bytes=_ROOT_BYTES, files=_ROOT_FILES, mode=0o755, flags=mounts.NO_SUID | mounts.NO_DEVICES
        )
        for path in view.trees:
            _make_target(_BASE + path, sources[path])
            mounts.bind(sources[path], _BASE + path)
        for path in view.devices:
            _make_target(_BASE + path, sources[path])
            mounts.bind_device(sources[path], _BASE + path)
        for path, target in view.links:
            os.makedirs(os.path.dirname(_BASE + path), exist_ok=True)
            os.symlink(target, _BASE + path)
        for path in view.masked:
            mounts.tmpfs(_BASE + path, size_bytes=4096, files=1, mode=0o555, flags=mounts.READ_ONLY)
        os.makedirs(_BASE + scratch_folder(view), exist_ok=True)
    finally:
        for descriptor in sources.values():
            os.close(descriptor)
    mounts.remount_read_only(_BASE)
    mounts.pivot_into(_BASE)


def _make_target(path: str, source: int) -> None:
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def mount_scratch(folder: str, *, size_bytes: int, files: int) -> None:
    """Mount this worker's own scratch space: empty, of limited size, gone with the worker. Nothing in it can be executed."""
    flags = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC
    mounts.tmpfs(folder, size_bytes=size_bytes, files=files, mode=0o700, flags=flags)


def check_minimal(view: View) -> None:
    """Raise KernelRefused if a path is visible that is none of the view's, nor on the way to one (a venv below /home)."""
    shown = (*view.trees, *(path for path, _ in view.links), *view.devices)
    for path in ("/proc", "/sys", "/home", "/etc/passwd", "/etc/shadow", "/run", "/var"):
        if os.path.lexists(path) and not any(f"{one}/".startswith(f"{path}/") for one in shown):
            raise KernelRefused(f"hide {path}", 17, "pivot_root")
