"""Tries to read files of the host: by name, by another name, through links, descriptors, handles and /proc."""

from __future__ import annotations

import os
from typing import Any


def _size(path: str | int) -> str:
    """Read it, but give away only how much there was, and of sentinels the content, which the host looks for."""
    with open(path, "rb") as file:
        content = file.read(4096)
    return content.decode() if b"fxcell-selftest" in content else f"{len(content)} bytes"


def paths(do: Any, names: list[str]) -> None:
    """Open each of these files."""
    for name in names:
        do(name, lambda name=name: _size(name))


def folders(do: Any, names: list[str]) -> None:
    """List each of these folders."""
    for name in names:
        do(f"list {name}", lambda name=name: f"{len(os.listdir(name))} entries")


def by_dots(do: Any, sentinel: str) -> None:
    """Climb above the root and come down again."""
    do("../ from the root", lambda: _size("/" + "../" * 40 + sentinel.lstrip("/")))
    do("../ from the interpreter", lambda: _size(os.path.dirname(os.__file__) + "/.." * 40 + sentinel))
    do("chdir", lambda: os.chdir(os.path.dirname(sentinel)))


def by_descriptor(do: Any, sentinel: str) -> None:
    """Open it as a place only (O_PATH) and reopen that place."""

    def reopen() -> str:
        place = os.open(sentinel, os.O_PATH)
        return _size(f"/proc/self/fd/{place}")

    do("O_PATH and /proc/self/fd", reopen)


def by_openat2(do: Any, sentinel: str, number: int) -> None:
    """Use openat2, which filters that know only openat forget."""
    import ctypes
    import struct

    how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_RDONLY, 0, 0))
    result = do.syscall("openat2", number, -100, ctypes.c_char_p(sentinel.encode()), how, 24)
    if result >= 0:
        do("read it", lambda: _size(result))


def by_hard_link(do: Any, sentinel: str, target: str) -> None:
    """Give it a second name, and read that."""

    def link() -> str:
        os.link(sentinel, target)
        return _size(target)

    do("hard link", link)


def by_symbolic_link(do: Any, link: str) -> None:
    """Follow a link that lies beside it."""
    do("symbolic link", lambda: _size(link))


def by_handle(do: Any, sentinel: str, number: int) -> None:
    """Ask for a handle, which open_by_handle_at takes without looking at any path (the hole of 2014's containers)."""
    import ctypes

    handle = ctypes.create_string_buffer(b"\x80\0\0\0" + bytes(140))
    mount = ctypes.c_int()
    do.syscall("name_to_handle_at", number, -100, ctypes.c_char_p(sentinel.encode()), handle, ctypes.byref(mount), 0)


def by_walking(do: Any, name: str) -> None:
    """Look through everything that can be seen for a file of that name."""
    seen = 0
    for folder, _, files in os.walk("/"):
        seen += 1
        if name in files:
            do(f"found {folder}", lambda folder=folder: _size(os.path.join(folder, name)))
            return
        if seen > 5_000:
            break
    do.refused.append([f"{seen} folders", "ENOENT"])


def environment(do: Any, name: str) -> None:
    """Look for a variable of the host: in os.environ, in libc's table, in every object, in /proc."""
    import gc

    found = os.environ.get(name) or next(
        (str(thing[name]) for thing in gc.get_objects() if type(thing) is dict and name in thing and thing[name]), None
    )
    if found:
        do.did.append(f"os.environ: {found}")
    else:
        do.refused.append(["os.environ", "absent"])
    for path in ("/proc/self/environ", "/proc/1/environ"):
        do(path, lambda path=path: f"{len(open(path, 'rb').read())} bytes")  # noqa: SIM115


def descriptors(do: Any) -> None:
    """Look for descriptors that were left open: all but the streams, the channel and the stack pipe."""
    for number in range(4096):
        if number not in (0, 1, 2, 3, 5):
            do(f"descriptor {number}", lambda number=number: os.fstat(number).st_mode)
            if do.refused:
                del do.refused[1:]
