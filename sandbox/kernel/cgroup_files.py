"""Reading and writing the files of control groups: one setting, one list or one table of counts each."""

from __future__ import annotations

import contextlib
import os


def write(path: str, text: str) -> None:
    """Write a setting. Raises OSError with the kernel's answer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def write_if_there(path: str, text: str) -> None:
    """Write a setting that some kernels do not have. Raises OSError, but not when it is missing."""
    with contextlib.suppress(FileNotFoundError):
        write(path, text)


def lines(path: str) -> list[str]:
    """The lines of a file; none when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []


def words(path: str) -> list[str]:
    """The words of a file; none when it cannot be read."""
    return " ".join(lines(path)).split()


def counter(path: str, name: str) -> int:
    """One count of a file with a name and a number in each line; 0 when it is not there."""
    return next((int(line.split()[1]) for line in lines(path) if line.split()[:1] == [name]), 0)
