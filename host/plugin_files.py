"""Reading a plugin's files as bytes: no link followed, no FIFO waited for, nothing without a cap.

The folder may be somebody else's upload. What is in it is either taken as it is, or skipped (names that start with a dot,
and __pycache__), or refused by name (links, FIFOs, devices, sockets, names that are not text).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NoReturn

from fxcell.policies.errors import PluginNotUsable

MAX_BYTES = 32 * 1024 * 1024
"""All files of a plugin together."""

MAX_ENTRIES = 2000
"""Files and folders together."""

MAX_DEPTH = 16
"""Folders inside one another."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: should a FIFO take the file's place after the look, the open does not wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK_BYTES = 1024 * 1024
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def is_folder(path: str) -> bool:
    """True for a folder, False for a regular file. Raises PluginNotUsable for anything else, and for what is not there."""
    mode = _mode(path)
    if stat.S_ISLNK(mode):
        raise PluginNotUsable(
            f"{path!r} is a symbolic link, and none is followed: give the path it leads to, {os.path.realpath(path)!r}"
        )
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise PluginNotUsable(f"{path!r} is {_kind(mode)}: a plugin is a .py file, or a folder with a plugin.toml")
    return stat.S_ISDIR(mode)


def read_file(path: str) -> bytes:
    """The bytes of one regular file, at most MAX_BYTES. Raises PluginNotUsable."""
    try:
        return _read(os.open(path, _READ), path, MAX_BYTES)
    except (OSError, ValueError) as error:
        _refuse_unreadable(path, error)


def read_folder(path: str) -> dict[str, bytes]:
    """Relative path with "/" -> bytes of every file below a folder, sorted. Raises PluginNotUsable."""
    reader = _Reader(path)
    try:
        reader.folder(os.open(path, _READ | os.O_DIRECTORY), "", MAX_DEPTH)
    except (OSError, ValueError) as error:
        _refuse_unreadable(path, error)
    return dict(sorted(reader.files.items()))


class _Reader:
    def __init__(self, top: str) -> None:
        self.top = top
        self.files: dict[str, bytes] = {}
        self.left_bytes = MAX_BYTES
        self.left_entries = MAX_ENTRIES

    def folder(self, descriptor: int, prefix: str, depth: int) -> None:
        """Take everything below an open folder; the descriptor is closed."""
        try:
            for name in self.names(descriptor, prefix):
                self.entry(descriptor, name, prefix + name, depth)
        finally:
            os.close(descriptor)

    def names(self, descriptor: int, prefix: str) -> list[str]:
        """The names in a folder that count, sorted: which of two faults is told does not depend on the file system."""
        names = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__pycache__":
                    continue
                self.left_entries -= 1
                if self.left_entries < 0:
                    raise PluginNotUsable(f"the plugin {self.top!r} has more than {MAX_ENTRIES:,} files and folders")
                if not entry.name.isprintable():  # lone surrogates, bytes that are not UTF-8, are not printable either
                    raise PluginNotUsable(f"the name {prefix + entry.name!a} in {self.top!r} is not printable text")
                names.append(entry.name)
        return sorted(names)

    def entry(self, parent: int, name: str, relative: str, depth: int) -> None:
        path = os.path.join(self.top, relative)
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if depth <= 1:
                raise PluginNotUsable(f"the folder {path!r} is nested deeper than {MAX_DEPTH} levels")
            self.folder(os.open(name, _READ | os.O_DIRECTORY, dir_fd=parent), relative + "/", depth - 1)
        elif stat.S_ISREG(mode):
            self.files[relative] = _read(os.open(name, _READ, dir_fd=parent), path, self.left_bytes)
            self.left_bytes -= len(self.files[relative])
        else:
            raise PluginNotUsable(f"{path!r} is {_kind(mode)}; a plugin holds regular files and folders only: remove it")


def _read(descriptor: int, path: str, left_bytes: int) -> bytes:
    """The whole of an open file; the descriptor is closed."""
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise PluginNotUsable(f"{path!r} is {_kind(mode)}, not a regular file")
        content = bytearray()
        # st_size is 0 for files of /proc, and a file may grow: what is read is what counts.
        while piece := os.read(descriptor, min(_CHUNK_BYTES, left_bytes + 1 - len(content))):
            content += piece
            if len(content) > left_bytes:
                raise PluginNotUsable(f"with {path!r} the plugin is over {MAX_BYTES // 2**20} MiB; leave data files out")
        return bytes(content)
    finally:
        os.close(descriptor)


def _mode(path: str) -> int:
    try:
        descriptor = os.open(path, _LOOK)
    except (OSError, ValueError) as error:
        _refuse_unreadable(path, error)
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a folder" if stat.S_ISDIR(mode) else "no file")


def _refuse_unreadable(path: str, error: OSError | ValueError) -> NoReturn:
    number = error.errno if isinstance(error, OSError) else None
    place = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else path
    if number == errno.ENOENT:
        text = f"there is no plugin {path!r}: give the path of a .py file, or of a folder with a plugin.toml"
    elif number == errno.ELOOP:
        text = f"{place!r} in the plugin {path!r} is a symbolic link, and none is followed"
    else:
        text = f"the plugin {path!r} cannot be read: {error}"
    raise PluginNotUsable(text) from error
