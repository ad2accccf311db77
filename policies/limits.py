"""Limits: how much one worker may use. All finite by default; none can be switched off.

A limit is a plain number with its unit in the field's name. In TOML the unit is in the value instead:
`memory = "256 MiB"`, `wall = "30 s"`; the keys are in `TOML_KEYS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from fxcell.policies.errors import PolicyError
from fxcell.policies.names import nearest, short

KiB, MiB, GiB, TiB = 2**10, 2**20, 2**30, 2**40

_BYTE_UNITS: Mapping[str, int] = {
    "B": 1,
    "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SECOND_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,20})?) ?([A-Za-z]{1,3})", re.ASCII)


class Range(NamedTuple):
    """The accepted values of one limit, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use at most. Raises PolicyError for a value that is not a finite number in its range.

    memory_bytes:  memory of the worker and everything it started; without a memory cgroup, of each process by itself.
    cpu_s:         CPU seconds per command.
    wall_s:        seconds per command by the clock on the wall, effects included.
    start_s:       seconds from the request for a worker to its first answer, once the template of its policy runs.
    processes:     processes of the worker, itself included; more than 1 needs the word "processes".
    threads:       threads beside the first of each process; the kernel's task limit is processes + threads.
    open_files:    descriptors open at the same time.
    file_bytes:    size of one file that the worker writes; never held below message_bytes, for messages are files too.
    scratch_bytes: size of the private /tmp; 0 is none, anything else needs the word "scratch".
    scratch_files: files and directories in the private /tmp.
    message_bytes: one message in either direction, large buffers included.
    output_bytes:  stdout and stderr together, over the worker's life. Counted as it is read: what a pipe holds (64 KiB)
                   can be written on top before the worker is ended; nothing of it is kept but the tails. FX.Print and
                   FX.Log have as much again, together, in each command; what is over it is denied.
    effects:       effects per command, those that are denied included. What is asked for beyond is denied, and the worker
                   lives on until another limit ends it.
    stack_bytes:   stack of the first thread; also the default of new ones.
    """

    memory_bytes: int = 256 * MiB
    cpu_s: float = 30.0
    wall_s: float = 60.0
    start_s: float = 10.0
    processes: int = 1
    threads: int = 16
    open_files: int = 64
    file_bytes: int = 64 * MiB
    scratch_bytes: int = 0
    scratch_files: int = 1024
    message_bytes: int = 128 * MiB
    output_bytes: int = 1 * MiB
    effects: int = 10_000
    stack_bytes: int = 8 * MiB

    def __post_init__(self) -> None:
        for name, accepted in RANGES.items():
            value = _checked(name, getattr(self, name), accepted)
            object.__setattr__(self, name, value)

    def to_data(self) -> dict[str, Any]:
        """The limits as a dict of numbers."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: object) -> Limits:
        """Read back `to_data`. Raises PolicyError for an unknown name or an unusable value."""
        if not isinstance(data, Mapping):
            raise PolicyError(f"limits must be a table, got {type(data).__name__}")
        for name in data:
            if name not in RANGES:
                raise PolicyError(f"there is no limit {name!r}{nearest(name, RANGES)}")
        return cls(**data)


RANGES: Mapping[str, Range] = {
    "memory_bytes": Range(16 * MiB, 4 * TiB),  # below 16 MiB no interpreter starts
    "cpu_s": Range(0.01, 30 * 86400),
    "wall_s": Range(0.01, 30 * 86400),
    "start_s": Range(0.1, 3600),
    "processes": Range(1, 4096),
    "threads": Range(0, 4096),
    "open_files": Range(16, 2**20),  # the interpreter, the channel and one import need about 10
    "file_bytes": Range(0, 4 * TiB),
    "scratch_bytes": Range(0, 4 * TiB),
    "scratch_files": Range(1, 2**24),
    "message_bytes": Range(4 * KiB, 64 * GiB),
    "output_bytes": Range(0, 4 * GiB),
    "effects": Range(0, 2**31 - 1),
    "stack_bytes": Range(64 * KiB, 4 * GiB),
}

TOML_KEYS: Mapping[str, str] = {
    field.name.removesuffix("_bytes").removesuffix("_s"): field.name for field in fields(Limits)
}
"""TOML key -> field of Limits."""


def limit_from_toml(key: str, value: object) -> int | float:
    """The number behind one `[limits]` entry. Raises PolicyError for a missing unit or a value out of range."""
    name = TOML_KEYS.get(key)
    if name is None:
        wrong = next((short for short, long in TOML_KEYS.items() if long == key), None)
        hint = f"; write {wrong!r}, with the unit in the value" if wrong else nearest(key, TOML_KEYS)
        raise PolicyError(f"there is no limit {key!r}{hint}")
    if name.endswith("_bytes"):
        value = parse_bytes(value, f"limits.{key}")
    elif name.endswith("_s"):
        value = parse_seconds(value, f"limits.{key}")
    return _checked(name, value, RANGES[name])


def parse_bytes(text: object, what: str = "the size") -> int:
    """`"256 MiB"` as a number of bytes. Raises PolicyError without a known unit or for a broken number of bytes."""
    number, factor = _quantity(text, what, _BYTE_UNITS, "256 MiB")
    count = float(number) * factor if "." in number else int(number) * factor
    if count != int(count):
        raise PolicyError(f"{what} = {text!r} is not a whole number of bytes")
    return int(count)


def parse_seconds(text: object, what: str = "the time") -> float:
    """`"10 s"`, `"500 ms"`, `"2 min"` or `"1 h"` as seconds. Raises PolicyError without a known unit."""
    number, factor = _quantity(text, what, _SECOND_UNITS, "30 s")
    # Division keeps "500 ms" at exactly 0.5; 500 * 0.001 is, 300 * 0.001 is not 0.3.
    return float(number) / 1000.0 if factor == _SECOND_UNITS["ms"] else float(number) * factor


def _quantity(text: object, what: str, units: Mapping[str, float], example: str) -> tuple[str, Any]:
    known = ", ".join(units)
    if isinstance(text, int | float) and not isinstance(text, bool):
        unit = example.partition(" ")[2]
        raise PolicyError(f'{what} = {text!r} has no unit; write it as "{text} {unit}" (units: {known})')
    if type(text) is not str:
        raise PolicyError(f'{what} must be a text such as "{example}", got {type(text).__name__} {short(text)}')
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        folded = {unit.lower(): unit for unit in units}
        given = match[2] if match else ""
        hint = f"; did you mean {folded[given.lower()]!r}?" if given.lower() in folded else ""
        raise PolicyError(
            f'{what} = {short(text)} is not a number and a unit such as "{example}" (units: {known}){hint}'
        )
    return match[1], units[match[2]]


def _checked(name: str, value: object, accepted: Range) -> int | float:
    """The value as int or float of the limit's own kind, or PolicyError naming the limit and its range."""
    whole = not name.endswith("_s")
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds:
        got = "None: a limit cannot be switched off" if value is None else f"{type(value).__name__} {short(value)}"
        raise PolicyError(f"limits.{name} must be {_accepted(name, accepted)}, got {got}")
    number: Any = value
    if not accepted.low <= number <= accepted.high:  # also NaN
        raise PolicyError(f"limits.{name} must be {_accepted(name, accepted)}, got {short(number)}")
    return int(number) if whole else float(number)


def _accepted(name: str, accepted: Range) -> str:
    unit = " bytes" if name.endswith("_bytes") else " seconds" if name.endswith("_s") else ""
    kind = "a number" if unit == " seconds" else "a whole number"
    return f"{kind} from {accepted.low:,} to {accepted.high:,}{unit}"
