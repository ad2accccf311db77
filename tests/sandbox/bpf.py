"""Classic BPF as seccomp(2) runs it: an interpreter, and a walk over every path, both over a compiled program's bytes.

run(program, data)       what the kernel would answer for one call
reachable(program, …)    every answer that some arguments can lead to: loads of arguments are unknown, both ways are taken
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ALLOW, NOTIFY, ERRNO, KILL_PROCESS, KILL_THREAD = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000, 0x00000000
ACTION, DATA = 0xFFFF0000, 0x0000FFFF
X32_BIT = 0x40000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
_INSTRUCTION = struct.Struct("=HBBI")
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16


@dataclass(frozen=True)
class Call:
    """One system call as a filter sees it. arguments: six registers, or None where they are not known."""

    number: int
    architecture: int
    arguments: tuple[int | None, ...] = (0,) * 6

    def load(self, offset: int) -> int | None:
        if offset == _NUMBER:
            return self.number & 0xFFFFFFFF
        if offset == _ARCHITECTURE:
            return self.architecture
        index, high = divmod(offset - _ARGUMENTS, 8)
        assert 0 <= index < 6, f"a load of offset {offset}"
        assert high in (0, 4)
        value = self.arguments[index]
        return None if value is None else value >> (8 * high) & 0xFFFFFFFF


def run(program: bytes, call: Call) -> int:
    """The filter's answer."""
    (answer,) = _answers(program, call)
    return answer


def reachable(program: bytes, number: int, architecture: int) -> set[int]:
    """Every answer for this number, whatever the arguments: at least those that really occur."""
    return _answers(program, Call(number, architecture, (None,) * 6))


def _answers(program: bytes, call: Call) -> set[int]:
    instructions = list(_INSTRUCTION.iter_unpack(program))
    answers, seen = set(), set()
    states: list[tuple[int, int | None]] = [(0, 0)]  # instruction, accumulator
    while states:
        state = states.pop()
        if state in seen:
            continue
        seen.add(state)
        place, accumulator = state
        code, if_true, if_false, k = instructions[place]
        match code:
            case 0x20:  # ld [k]
                states.append((place + 1, call.load(k)))
            case 0x54:  # and #k
                states.append((place + 1, None if accumulator is None else accumulator & k))
            case 0x05:  # ja
                states.append((place + 1 + k, accumulator))
            case 0x06:  # ret #k
                answers.add(k)
            case 0x15 | 0x25 | 0x35 | 0x45:  # jeq, jgt, jge, jset
                if accumulator is None:
                    states += [(place + 1 + if_true, None), (place + 1 + if_false, None)]
                    continue
                holds = {
                    0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)
                }[code]  # fmt: skip
                states.append((place + 1 + (if_true if holds else if_false), accumulator))
            case _:
                raise AssertionError(f"instruction {place} has the unknown code {code:#x}")
    return answers


def words(answer: int) -> str:
    """An answer for people: allow, notify, errno 38, kill."""
    action = answer & ACTION
    if action == ERRNO:
        return f"errno {answer & DATA}"
    return {ALLOW: "allow", NOTIFY: "notify", KILL_PROCESS: "kill process", KILL_THREAD: "kill thread"}.get(
        action, hex(answer)
    )
