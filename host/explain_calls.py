"""Rows of the table of system calls in words: conditions on arguments, and calls of one reason together."""

from __future__ import annotations

import fcntl
import mmap
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fxcell.sandbox import syscalls
from fxcell.sandbox.filter import syscall_name
from fxcell.sandbox.syscalls import Allow, Compare

_ARGUMENTS: Mapping[str, str] = {
    "clone": "flags", "fcntl": "fd command", "ioctl": "fd request", "kill": "process", "tgkill": "process", "prctl": "option",
    "mmap": "address length protection flags", "mprotect": "address length protection", "memfd_create": "name flags",
    "prlimit64": "process resource new_limit", "sendmsg": "fd message flags", "sendto": "fd data length flags address",
    "socketpair": "family type", "futex": "address operation", "pkey_mprotect": "address length protection",
}  # fmt: skip
"""Call -> the names of its arguments, as far as rows compare them."""

_FLAGS: Mapping[str, Mapping[str, int]] = {
    "protection": {"PROT_EXEC": mmap.PROT_EXEC, "PROT_WRITE": mmap.PROT_WRITE, "PROT_READ": mmap.PROT_READ},
    "mmap flags": {
        "MAP_SHARED": mmap.MAP_SHARED, "MAP_ANONYMOUS": mmap.MAP_ANONYMOUS, "MAP_GROWSDOWN": 0x100, "MAP_HUGETLB": 0x40000,
    },
    "sendmsg flags": {"MSG_OOB": int(socket.MSG_OOB)}, "sendto flags": {"MSG_OOB": int(socket.MSG_OOB)},
    "clone flags": {
        "CLONE_VM": 0x100, "CLONE_PTRACE": 0x2000, "CLONE_THREAD": 0x10000, "CLONE_NEWNS": 0x20000, "CLONE_UNTRACED": 0x800000,
        "CLONE_NEWTIME": 0x80, "CLONE_NEWCGROUP": 0x2000000, "CLONE_NEWUTS": 0x4000000, "CLONE_NEWIPC": 0x8000000,
        "CLONE_NEWUSER": 0x10000000, "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
    },
    "type": {"SOCK_NONBLOCK": socket.SOCK_NONBLOCK, "SOCK_CLOEXEC": socket.SOCK_CLOEXEC},
}  # fmt: skip
_COMMANDS = (
    "F_DUPFD", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL", "F_GETLK", "F_SETLK", "F_SETLKW", "F_DUPFD_CLOEXEC", "F_ADD_SEALS",
    "F_GET_SEALS",
)  # fmt: skip
_VALUES: Mapping[str, Mapping[int, str]] = {
    "command": {getattr(fcntl, name): name for name in _COMMANDS},
    "family": {int(socket.AF_UNIX): "AF_UNIX"},
    "type": {int(socket.SOCK_STREAM): "SOCK_STREAM"},
    "option": {15: "PR_SET_NAME", 16: "PR_GET_NAME"},
    "request": {0x5421: "FIONBIO"},
    "fd": {
        syscalls.CHANNEL_FD: "the channel to the host",
        syscalls.REPORT_FD: "the line to the supervisor, closed by then",
    },
    "process": {syscalls.WORKER_PID: "the worker itself"},
    "new_limit": {0: "nothing"},
    "address": {0: "nothing"},
}
_LOW_32 = 0xFFFFFFFF


def readable_rows(rows: Iterable[Allow]) -> list[dict[str, str]]:
    """name, reason and condition of each row, in the order of the table; rows that differ in one value are one."""
    grouped: dict[tuple[Any, ...], list[Allow]] = {}
    for row in rows:
        one = len(row.when) == 1
        key = (row.name, row.reason, one and (row.when[0].argument, row.when[0].mask), row.when if not one else ())
        grouped.setdefault(key, []).append(row)
    return [
        {"name": same[0].name, "reason": same[0].reason, "condition": _condition(same)} for same in grouped.values()
    ]


def _condition(rows: list[Allow]) -> str:
    name = rows[0].name
    if len(rows) > 1:
        compares = [row.when[0] for row in rows]
        argument = _argument(name, compares[0].argument)
        return f"{argument} is one of {', '.join(_value(argument, c.value) for c in compares)}"
    return ", ".join(condition(name, compare) for compare in rows[0].when)


def condition(name: str, compare: Compare) -> str:
    """One comparison in words, such as `protection without PROT_EXEC` or `family is AF_UNIX`."""
    argument = _argument(name, compare.argument)
    flags = _FLAGS.get(argument) or _FLAGS.get(f"{name} {argument}", {})
    mask = compare.mask & (_LOW_32 if compare.mask <= _LOW_32 else 2**64 - 1)
    value = compare.value & mask
    ignored = _LOW_32 & ~mask
    if mask in (_LOW_32, 2**64 - 1):
        return f"{argument} is {_value(argument, value)}"
    if mask.bit_count() > 16:  # nearly all of it: a value, with a few bits that do not matter
        return f"{argument} is {_value(argument, value)} (with or without {_flag_names(flags, ignored)})"
    parts = [
        f"{word} {_flag_names(flags, bits)}" for word, bits in (("with", value), ("without", mask & ~value)) if bits
    ]
    return f"{argument} {' and '.join(parts)}"


def _argument(name: str, index: int) -> str:
    names = _ARGUMENTS.get(name, "").split()
    return names[index] if index < len(names) else f"argument {index}"


def _value(argument: str, value: int) -> str:
    return _VALUES.get(argument, {}).get(value) or (str(value) if value < 16 else hex(value))


def _flag_names(flags: Mapping[str, int], bits: int) -> str:
    names = [name for name, bit in flags.items() if bits & bit == bit]
    rest = bits & ~sum(flags[name] for name in names)
    return "|".join([*names, *([hex(rest)] if rest else [])])


def errno_groups(rows: Iterable[Allow]) -> Iterator[tuple[int, str, list[str]]]:
    """(errno, reason, names) of what is refused with an errno. A name that is also allowed is refused with other arguments."""
    rows = list(rows)
    groups: dict[tuple[int, str], list[str]] = {}
    for name, number, reason in syscalls.refused(rows):
        groups.setdefault((number, reason), []).append(name)
    for (number, reason), names in groups.items():
        yield number, reason, names


def ending_calls(rows: Iterable[Allow]) -> list[str]:
    """The names of the calls that end the worker: those this libseccomp knows and no table holds."""
    rows = list(rows)
    told = {row.name for row in rows} | {name for name, _, _ in syscalls.refused(rows)}
    known = (syscall_name(number) for number in range(syscalls.NEW_CALLS.start))
    return sorted(name for name in known if name not in told and not name.startswith("syscall_"))
