"""How much a granted directory holds, counted on disk, and the lock under which it is counted and written to.

    with alone(root, pace):              one writer at a time, among threads and among hosts
        usage = measure(root, most, pace)
        ... write ...

What a host that died in mid-write left behind is removed on the way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from fxcell.host.effects.beneath import DIRECTORY_FLAGS
from fxcell.host.effects.context import Pace
from fxcell.host.effects.openat2 import open_beneath
from fxcell.policies.errors import EffectFailed
from fxcell.policies.under_rule import OWN_PREFIX

DRAFT_NAME = re.compile(re.escape(OWN_PREFIX.encode()) + rb"[0-9a-f]{32}")
_LOCK_STEP_S = 0.002  # how soon a waiting writer notices that the one before it is done
_CHECK_EVERY = 256
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # removed, or replaced by something else, since its name was read


class Usage(NamedTuple):
    """Files and directories below a directory, and the sizes of the files together."""

    files: int
    total_bytes: int


@contextlib.contextmanager
def alone(root: int, pace: Pace) -> Iterator[None]:
    """Hold the lock of a granted directory. It is flock(2) on the directory itself, so other hosts wait as well.

    Raises: EffectFailed - timeout, cancelled; unsupported: a file system that cannot lock a directory (NFS).
    """
    while True:
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            pace.wait(_LOCK_STEP_S)
        except OSError as error:
            text = "the file system of the granted directory has no locks for directories, so its quota cannot be kept"
            raise EffectFailed(pace.effect, "unsupported", text) from error
    try:
        yield
    finally:
        # Not by closing alone: a process that was forked meanwhile would keep the lock.
        fcntl.flock(root, fcntl.LOCK_UN)


def measure(root: int, most: int, pace: Pace) -> Usage:
    """Count everything below a directory, hidden files and what others put there included; mount points are entered.

    most:   counting stops above this number of files, so that its cost is bounded; total_bytes is then too small.
    Sizes are those that a reader sees: holes count, and a file with two names counts twice.
    Raises: EffectFailed - unmeasurable: a directory that the host may not read, or deeper than a path can be long.
    """
    files = total = 0
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        with _opened(root, path, pace) as directory:
            if directory is None:
                continue
            with os.scandir(directory) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    size = _size_of(entry)
                    if size is None or (DRAFT_NAME.fullmatch(name) and _swept(directory, name)):
                        continue
                    files, total = files + 1, total + size
                    if files > most:
                        return Usage(files, total)
                    if files % _CHECK_EVERY == 0:
                        pace.check()
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path + b"/" + name if path else name)
    return Usage(files, total)


@contextlib.contextmanager
def _opened(root: int, path: bytes, pace: Pace) -> Iterator[int | None]:
    """A descriptor of a directory, or None for one that is not there any more."""
    try:
        directory = open_beneath(root, path or b".", DIRECTORY_FLAGS)
    except OSError as error:
        if error.errno not in _GONE:
            text = "a directory below the granted one cannot be measured, so its quota cannot be kept"
            raise EffectFailed(pace.effect, "unmeasurable", text) from error
        yield None
        return
    try:
        yield directory
    finally:
        os.close(directory)


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """The size of a regular file, 0 for anything else, None for what is gone."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _swept(directory: int, name: bytes) -> bool:
    """Remove a draft that no living host writes; False when one does, and then it counts.

    A writer holds a lock on its draft from before the name exists, and the kernel releases it when the host dies.
    """
    try:
        draft = open_beneath(directory, name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(draft).st_mode):
            return False
        fcntl.flock(draft, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError as error:
        return error.errno == errno.ENOENT
    finally:
        os.close(draft)
    return True
