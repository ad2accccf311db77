"""Attacks on files, and on what a worker inherits."""

from __future__ import annotations

import os

from fxcell.host.selftest.attack import STOPPED, Attack
from fxcell.host.selftest.sentinels import VARIABLE

_HIDDEN = "minimal_root"

FILES = (
    Attack(
        "shadow", "files", "reads /etc/shadow, /etc/passwd, the machine id", "reading.paths", _HIDDEN,
        arguments=lambda _a: {"names": ["/etc/shadow", "/etc/passwd", "/etc/machine-id", "/etc/hostname"]},
    ),
    Attack(
        "file_by_path", "files", "reads a file of the host's user by its path", "reading.paths", _HIDDEN,
        arguments=lambda a: {"names": [a.sentinels.file]},
    ),
    Attack(
        "file_by_dots", "files", "reads it by ../ from the root and from the interpreter", "reading.by_dots", _HIDDEN,
        arguments=lambda a: {"sentinel": a.sentinels.file},
    ),
    Attack(
        "file_by_symlink", "files", "reads it through a symbolic link", "reading.by_symbolic_link", _HIDDEN,
        arguments=lambda a: {"link": a.sentinels.link},
    ),
    Attack(
        "file_by_descriptor", "files", "opens it with O_PATH and reopens /proc/self/fd", "reading.by_descriptor", _HIDDEN,
        arguments=lambda a: {"sentinel": a.sentinels.file},
    ),
    Attack(
        "file_by_proc", "files", "reads it below /proc/self/root and /proc/HOST/root", "reading.paths", _HIDDEN,
        arguments=lambda a: {
            "names": [f"/proc/{who}/root{a.sentinels.file}" for who in ("self", "1", str(os.getpid()))]
        },
    ),
    Attack(
        "file_by_hard_link", "files", "gives it a second name and reads that", "reading.by_hard_link", "seccomp",
        arguments=lambda a: {"sentinel": a.sentinels.file, "target": f"{a.sentinels.open_folder}/second"},
    ),
    Attack(
        "file_by_openat2", "files", "reads it with openat2", "reading.by_openat2", "seccomp",
        arguments=lambda a: {"sentinel": a.sentinels.file, "number": a.numbers("openat2")},
    ),
    Attack(
        "file_by_handle", "files", "asks for a file handle, which needs no path later", "reading.by_handle", "seccomp",
        arguments=lambda a: {"sentinel": a.sentinels.file, "number": a.numbers("name_to_handle_at")},
    ),
    Attack(
        "file_by_walking", "files", "looks through all that can be seen for it", "reading.by_walking", _HIDDEN,
        ends=STOPPED | {"deadline"}, arguments=lambda a: {"name": a.sentinels.name},
    ),
    Attack(
        "folders", "files", "lists /, /home, /root, /tmp and the host's folder", "reading.folders", _HIDDEN,
        arguments=lambda a: {"names": ["/home", "/root", "/proc", "/sys", "/run", a.sentinels.folder]},
    ),
    Attack(
        "devices", "files", "reads the kernel's memory, log and addresses", "reading.paths", _HIDDEN,
        arguments=lambda _a: {
            "names": ["/dev/mem", "/dev/kmsg", "/proc/kcore", "/proc/kallsyms", "/sys/kernel/notes", "/dev/sda", "/proc/version"]
        },
    ),
)  # fmt: skip


def _spoil(how: str, what: str) -> Attack:
    return Attack(
        f"file_{how}", "writes", what, "writing.spoil", _HIDDEN,
        arguments=lambda a: {"sentinel": a.sentinels.file, "how": how},
    )  # fmt: skip


WRITES = (
    Attack(
        "plant_everywhere", "writes", "makes a file in /, /etc, /usr and every library folder", "writing.plant", _HIDDEN,
        arguments=lambda a: {"folders": list(a.folders), "name": a.sentinels.name},
    ),
    Attack(
        "plant_pth", "writes", "makes a .pth, which every later Python would run", "writing.plant", _HIDDEN,
        arguments=lambda a: {
            "folders": [f for f in a.folders if f.endswith("-packages")], "name": f"{a.sentinels.name}.pth"
        },
    ),
    Attack(
        "plant_beside", "writes", "makes a folder and a link where everybody may write", "writing.make_things", _HIDDEN,
        arguments=lambda a: {"folder": a.sentinels.open_folder, "name": a.sentinels.name},
    ),
    Attack(
        "launcher", "writes", "opens the interpreter, its library and fxcell for writing", "writing.open_for_writing", _HIDDEN,
        arguments=lambda a: {"files": list(a.launcher)},
    ),
    _spoil("append", "appends to the file of the host's user"),
    _spoil("truncate", "empties it"),
    _spoil("unlink", "deletes it"),
    _spoil("rename", "renames it"),
    _spoil("chmod", "changes its mode"),
    _spoil("utime", "changes its times"),
    Attack(
        "fifo", "writes", "makes a named pipe", "writing.make_fifo", "seccomp",
        arguments=lambda a: {"folder": a.sentinels.open_folder, "name": a.sentinels.name},
    ),
    Attack(
        "device", "writes", "makes the device of all memory", "writing.make_device", "seccomp",
        arguments=lambda a: {"folder": a.sentinels.open_folder, "name": a.sentinels.name},
    ),
)  # fmt: skip

ENVIRONMENT = (
    Attack(
        "variable", "environment", "looks for a variable of the host, in memory and in /proc", "reading.environment", "hygiene",
        arguments=lambda _a: {"name": VARIABLE},
    ),
    Attack(
        "host_environ", "environment", "reads the environment and memory map of the host's process", "reading.paths", _HIDDEN,
        arguments=lambda _a: {"names": [f"/proc/{os.getpid()}/{what}" for what in ("environ", "maps", "cmdline")]},
    ),
    Attack("descriptors", "environment", "looks for descriptors that were left open", "reading.descriptors", "hygiene", STOPPED),
)  # fmt: skip
