"""A new file that is not there until it is complete: written without a name, then given its name in one step.

    with draft(directory) as new:        O_TMPFILE where the file system has it, else a name of 128 random bits
        os.write(new.descriptor, ...)
        new.create(b"a.txt")             fails when the name is taken     or
        new.replace(b"a.txt")            takes the place of the file of that name

A host that dies leaves nothing, or one draft whose lock is free, which the next write below the same granted directory
removes (usage.measure).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator

from fxcell.host.effects.beneath import sync_directory
from fxcell.host.effects.openat2 import open_beneath
from fxcell.policies.under_rule import OWN_PREFIX

_MODE = 0o644  # less the umask, by the kernel
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)  # open(2), BUGS: what older kernels answer
_ATTEMPTS = 8


class Draft:
    """descriptor: open for writing, locked. It is closed, and the draft removed, at the end of the `with` block."""

    def __init__(self, directory: int, descriptor: int, name: bytes | None) -> None:
        self.descriptor = descriptor
        self._directory = directory
        self._name = name  # None while the file has none

    def create(self, name: bytes) -> None:
        """Give the file its name. Raises FileExistsError when anything has it, a symbolic link included."""
        os.fsync(self.descriptor)
        self._link(name)
        self.discard()
        sync_directory(self._directory)

    def replace(self, name: bytes) -> None:
        """Give the file its name in place of the file, or link, that has it; what that leads to is not touched."""
        os.fsync(self.descriptor)
        if self._name is None:  # linkat(2) cannot replace
            fresh = _fresh_name()
            self._link(fresh)
            self._name = fresh
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._name = None
        sync_directory(self._directory)

    def discard(self) -> None:
        """Remove the draft's own name, if it has one."""
        if self._name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)
            self._name = None

    def _link(self, name: bytes) -> None:
        if self._name is None:
            # By way of /proc, as open(2) says: AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH before Linux 6.10.
            source = f"/proc/self/fd/{self.descriptor}".encode()
            os.link(source, name, dst_dir_fd=self._directory, follow_symlinks=True)
        else:
            os.link(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory, follow_symlinks=False)


@contextlib.contextmanager
def draft(directory: int) -> Iterator[Draft]:
    """An empty file in the directory that no effect can name or list.

    directory: descriptor that can be read, for fsync(2).
    Raises:    OSError.
    """
    new = _unnamed(directory) or _named(directory)
    try:
        yield new
    finally:
        try:
            new.discard()
        finally:
            os.close(new.descriptor)


def _unnamed(directory: int) -> Draft | None:
    if not os.path.exists("/proc/self/fd"):
        return None
    try:
        descriptor = open_beneath(directory, b".", os.O_TMPFILE | os.O_WRONLY, _MODE)
    except OSError as error:
        if error.errno in _NO_TMPFILE:
            return None
        raise
    return _locked(directory, descriptor, None)


def _named(directory: int) -> Draft:
    for _ in range(_ATTEMPTS):
        name = _fresh_name()
        descriptor = open_beneath(directory, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
        with contextlib.suppress(BlockingIOError):
            new = _locked(directory, descriptor, name)
            if os.fstat(descriptor).st_nlink:
                return new
            os.close(descriptor)
        # Another writer's sweep took it in the moment before it was locked.
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _locked(directory: int, descriptor: int, name: bytes | None) -> Draft:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return Draft(directory, descriptor, name)


def _fresh_name() -> bytes:
    return f"{OWN_PREFIX}{secrets.token_hex(16)}".encode()
