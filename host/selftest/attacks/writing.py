"""Tries to leave something behind: files where Python, a shell or a person would find them, or in the sentinel."""

from __future__ import annotations

import os
import stat
from typing import Any


def plant(do: Any, folders: list[str], name: str) -> None:
    """Make a file in each of these folders; where it works, take it away again."""

    def make(path: str) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(path)

    for folder in folders:
        do(f"{folder}/{name}", lambda folder=folder: make(os.path.join(folder, name)))


def make_things(do: Any, folder: str, name: str) -> None:
    """Make a folder, a symbolic link, a FIFO in a folder where everybody may write; leave them there."""
    path = os.path.join(folder, name)
    do("folder", lambda: os.mkdir(f"{path}-folder"))
    do("symbolic link", lambda: os.symlink("/etc/passwd", f"{path}-link"))


def make_fifo(do: Any, folder: str, name: str) -> None:
    """Make a named pipe."""
    do("mkfifo", lambda: os.mkfifo(os.path.join(folder, name)))


def make_device(do: Any, folder: str, name: str) -> None:
    """Make the device of all memory (1:1); where it works, take it away again."""

    def make() -> None:
        path = os.path.join(folder, name)
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1))
        os.unlink(path)

    do("mknod", make)


def open_for_writing(do: Any, files: list[str]) -> None:
    """Open files of the interpreter and of the launcher for writing; write nothing."""
    for name in files:
        do(name, lambda name=name: os.close(os.open(name, os.O_WRONLY)))


def spoil(do: Any, sentinel: str, how: str) -> None:
    """Do one of the things to a file that change it."""

    def append() -> int:
        with open(sentinel, "ab") as file:
            return file.write(b"spoiled")

    act = {
        "append": append,
        "truncate": lambda: os.truncate(sentinel, 0),
        "unlink": lambda: os.unlink(sentinel),
        "rename": lambda: os.rename(sentinel, f"{sentinel}.moved"),
        "chmod": lambda: os.chmod(sentinel, 0o600),
        "utime": lambda: os.utime(sentinel, (0, 0)),
        "setxattr": lambda: os.setxattr(sentinel, "user.spoiled", b"1"),
    }[how]
    do(how, act)


def fill(do: Any, folder: str, most_bytes: int) -> None:
    """Fill a folder past what it may hold."""

    def write() -> str:
        written = 0
        try:
            with open(os.path.join(folder, "fill"), "wb") as file:
                while written <= most_bytes:
                    written += file.write(bytes(1 << 20))
                    file.flush()
        finally:
            os.unlink(os.path.join(folder, "fill"))
        return f"{written} bytes"

    do("fill", write)
