"""Compiling the table of system calls into a seccomp filter, with pyseccomp over libseccomp.

The compiled program checks the architecture first, then the x32 bit, then the number. Default answer: user notification,
so that the supervisor learns what was tried before it kills; where nobody listens the kernel answers ENOSYS.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
from collections.abc import Iterable

import pyseccomp

from fxcell.policies.errors import InternalError
from fxcell.sandbox import syscalls

NO_CALL = -1
UNKNOWN = -1
"""What libseccomp answers for a name it does not know, or that this architecture lacks (then other negative numbers)."""


@functools.lru_cache(maxsize=16)
def compile_filter(words: frozenset[str]) -> bytes:
    """The BPF program for a policy's `allow` words, ready for kernel.seccomp.install_filter.

    A call that is allowed only with certain arguments goes to the supervisor otherwise (libseccomp cannot say "else
    this errno"); it answers with the errno of `errno_answers`.
    Raises: InternalError - libseccomp refused a row of our own table.
    """
    rows = syscalls.allowed(words)
    program = pyseccomp.SyscallFilter(pyseccomp.NOTIFY)
    # libseccomp's own default for a foreign architecture ends one thread only. x32 counts as foreign here.
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    unconditional = {row.name for row in rows if not row.when}
    conditional = {row.name for row in rows} - unconditional
    for name in sorted(unconditional):
        _add(program, pyseccomp.ALLOW, name)
    for row in rows:
        if row.name in conditional and not row.asked:
            _add(program, pyseccomp.ALLOW, row.name, row.when)
    for name, number, _reason in syscalls.refused(rows):
        if name not in conditional:
            _add(program, pyseccomp.ERRNO(number), name)
    for new_call in syscalls.NEW_CALLS:
        program.add_rule(pyseccomp.ERRNO(errno.ENOSYS), new_call)
    return _export(program)


def for_process(program: bytes, pid: int) -> bytes:
    """The program with the worker's own process id in the place of syscalls.WORKER_PID."""
    wanted, put = struct.pack("<I", syscalls.WORKER_PID), struct.pack("<I", pid)
    instructions = [program[start : start + 8] for start in range(0, len(program), 8)]
    return b"".join(code[:4] + put if code[4:] == wanted else code for code in instructions)


def errno_answers(words: Iterable[str]) -> dict[int, int]:
    """Which errno the supervisor answers, by call number, when a call's arguments were not among the allowed ones."""
    # The kernel's own answer to "no call at all"; a signal that interrupts the wait for ours would let it return.
    answers: dict[int, int] = {NO_CALL: errno.ENOSYS}
    for name, number, _reason in syscalls.refused(syscalls.allowed(words)):
        resolved = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if resolved >= 0:
            answers.setdefault(resolved, number)
    return answers


def asked_rows(words: Iterable[str]) -> dict[int, tuple[syscalls.Allow, ...]]:
    """The rows that the supervisor is asked about, by call number; each has comparisons."""
    rows = [row for row in syscalls.allowed(words) if row.asked]
    return {
        pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name): tuple(row for row in rows if row.name == name)
        for name in sorted({row.name for row in rows})
    }


def syscall_name(number: int) -> str:
    """The name of a system call number on this machine, or `syscall_N`."""
    try:
        name = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number)
    except ValueError:
        return f"syscall_{number}"
    return name.decode() if isinstance(name, bytes) else str(name)


def _add(program: pyseccomp.SyscallFilter, action: int, name: str, when: tuple[syscalls.Compare, ...] = ()) -> None:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    if number < 0:
        # Not a call of this architecture (aarch64 has no `open`), or newer than this libseccomp: then it stays with the
        # default answer, which is the strictest one.
        return
    compared = [pyseccomp.Arg(c.argument, pyseccomp.MASKED_EQ, c.mask, c.value & c.mask) for c in when]
    try:
        program.add_rule(action, number, *compared)
    except OSError as error:
        raise InternalError(f"libseccomp refused the rule for {name}: {error}") from error


def _export(program: pyseccomp.SyscallFilter) -> bytes:
    descriptor = os.memfd_create("fxcell-filter", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()
