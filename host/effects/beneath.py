"""From an effect's path to descriptors: the granted directory, then what is below it, no link followed on the way.

    effect.path -> granted(): descriptor of the granted directory, path below it -> descend(): descriptor of the parent

Descriptors, not paths, are handed on: what is renamed meanwhile cannot lead elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from fxcell.host.effects.context import Context, Pace
from fxcell.host.effects.file_errors import failed
from fxcell.host.effects.openat2 import open_beneath
from fxcell.policies import rules

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY_MODE = 0o755  # less the umask, by the kernel


class Granted(NamedTuple):
    """root: descriptor of the directory. parts: names below it, none for the directory. rule: None for the host itself."""

    root: int
    parts: list[bytes]
    rule: Any


@contextlib.contextmanager
def granted(effect: Any, context: Context) -> Iterator[Granted]:
    """The granted directory of an effect that the policy grants; for the host itself, whatever directory it names.

    The directory's own path may hold links: whoever wrote the policy chose it.
    """
    if context.policy is None:
        rule, (directory, below) = None, os.path.split(effect.path)
        if not below:
            raise failed(effect, "bad_request", "the path ends in a slash, so it names no file")
    else:
        rule = context.policy.effects[effect.effect_name]
        directory, below = rules.granted_root(context.policy, effect.path, effect.effect_name)
    path = below.encode()  # not the file system's encoding: the rules have judged UTF-8
    if b"\0" in path:
        raise ValueError("NUL byte")
    root = os.open(directory or ".", DIRECTORY_FLAGS)
    try:
        yield Granted(root, path.split(b"/") if path else [], rule)
    finally:
        os.close(root)


@contextlib.contextmanager
def descend(root: int, parts: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(descriptor of the deepest directory that is there, names that are missing below it)."""
    at, there = os.dup(root), 0
    try:
        for part in parts:
            try:
                below = open_beneath(at, part, DIRECTORY_FLAGS)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                break
            os.close(at)
            at, there = below, there + 1
        yield at, parts[there:]
    finally:
        os.close(at)


@contextlib.contextmanager
def made(directory: int, names: list[bytes], pace: Pace) -> Iterator[int]:
    """The descriptor of the last of these directories, each made inside the one before; they stay whatever happens then."""
    at = os.dup(directory)
    try:
        for name in names:
            pace.check()
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, _DIRECTORY_MODE, dir_fd=at)
            below = open_beneath(at, name, DIRECTORY_FLAGS)
            sync_directory(at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def sync_directory(directory: int) -> None:
    """Have the names of a directory on disk. Where the file system cannot, they are as safe as it makes them."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # fsync(2): what some FUSE and network file systems answer
            raise


def look(effect: Any, directory: int, name: bytes) -> os.stat_result | None:
    """What stands at a name, which is regular, or None where there is nothing.

    Raises: EffectFailed - permission: a symbolic link; not_regular: a directory, FIFO, socket or device.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise failed(effect, "permission", "a symbolic link is in the path, and none is followed")
    if not stat.S_ISREG(found.st_mode):
        raise failed(effect, "not_regular", "it is not a regular file")
    return found
