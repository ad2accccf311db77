"""A compiled seccomp filter as text: one line for each instruction, with the names of what it compares.

`0007: jeq  #1 write   0122 : 0008` goes on at 122 when the number loaded last is 1, which is write, and at 8 when not.
"""

from __future__ import annotations

import errno
import functools
import struct

from fxcell.sandbox.filter import syscall_name

_INSTRUCTION = struct.Struct("=HBBI")
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ARCHITECTURES = {0xC000003E: "x86_64", 0xC00000B7: "aarch64", 0x40000003: "i386"}
_X32_BIT = 0x40000000
_JUMPS = {0x15: "jeq", 0x25: "jgt", 0x35: "jge", 0x45: "jset"}
_ACTIONS = {
    0x7FFF0000: "allow",
    0x7FC00000: "notify the supervisor",
    0x80000000: "kill process",
    0x00000000: "kill thread",
}


def disassemble(program: bytes) -> list[str]:
    """One line for each 8-byte instruction. Jump targets are instruction numbers; `x : y` is "if so x, else y"."""
    instructions = list(_INSTRUCTION.iter_unpack(program))
    loaded = _loads(instructions)
    lines = []
    for place, (code, if_true, if_false, k) in enumerate(instructions):
        match code:
            case 0x20:
                text = f"ld   {_field(k)}"
            case 0x54:
                text = f"and  #{k:#x}"
            case 0x05:
                text = f"ja   {place + 1 + k:04}"
            case 0x06:
                text = f"ret  {_action(k)}"
            case _ if code in _JUMPS:
                targets = f"{place + 1 + if_true:04} : {place + 1 + if_false:04}"
                text = f"{_JUMPS[code]:4} {_constant(k, loaded[place], code):28} {targets}"
            case _:
                text = f"code {code:#x} {if_true} {if_false} {k:#x}"
        lines.append(f"{place:04}: {text}")
    return lines


def _loads(instructions: list[tuple[int, int, int, int]]) -> list[int | None]:
    """What is in the accumulator before each instruction: the offset it was loaded from, or None where paths differ.

    Jumps go forward only, so one pass sees every way to an instruction before it.
    """
    arriving: list[set[int | None]] = [set() for _ in range(len(instructions) + 1)]
    arriving[0].add(None)
    for place, (code, if_true, if_false, k) in enumerate(instructions):
        here = {k} if code == 0x20 else arriving[place]
        steps = {0x05: (k,), 0x06: ()}.get(code, (if_true, if_false) if code in _JUMPS else (0,))
        for step in steps:
            if place + 1 + step < len(arriving):
                arriving[place + 1 + step] |= here
    return [next(iter(ways)) if len(ways) == 1 else None for ways in arriving[:-1]]


def _field(offset: int) -> str:
    if offset in (_NUMBER, _ARCHITECTURE):
        return {_NUMBER: "number", _ARCHITECTURE: "architecture"}[offset]
    index, half = divmod(offset - _ARGUMENTS, 8)
    return f"argument {index}, {'high' if half else 'low'} half"


def _constant(k: int, loaded: int | None, code: int) -> str:
    if loaded == _ARCHITECTURE:
        return f"#{k:#x} {_ARCHITECTURES.get(k, '')}".rstrip()
    if loaded == _NUMBER and code == 0x15 and k < _X32_BIT:
        return f"#{k} {_name(k)}"
    if loaded == _NUMBER:
        return f"#{k:#x}" + {_X32_BIT: " x32", 0xFFFFFFFF: " no number"}.get(k, "")
    return f"#{k:#x}"


@functools.cache
def _name(number: int) -> str:
    return syscall_name(number)


def _action(k: int) -> str:
    if k & 0xFFFF0000 == 0x00050000:
        return f"errno {errno.errorcode.get(k & 0xFFFF, k & 0xFFFF)}"
    return _ACTIONS.get(k, f"{k:#x}")
