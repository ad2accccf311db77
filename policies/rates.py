"""How often a rule allows an effect: `rate = "10/s"`, and `burst`, how many may come at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from fxcell.policies.errors import PolicyError
from fxcell.policies.names import nearest, short

UNITS: Mapping[str, float] = {"s": 1.0, "min": 60.0, "h": 3600.0}
"""Unit of a rate -> seconds."""

MAX_COUNT = 1_000_000
_RATE = re.compile(r"(\d{1,9}) ?/ ?([A-Za-z]{1,10})", re.ASCII)


class Rate(NamedTuple):
    """A number of effects per unit of time. str() is the one spelling of it, such as "10/s"."""

    number: int
    unit: str

    def __str__(self) -> str:
        return f"{self.number}/{self.unit}"

    @property
    def per_second(self) -> float:
        """Effects per second."""
        return self.number / UNITS[self.unit]


def parse_rate(text: object) -> Rate:
    """Read `"10/s"`, `"600/min"` or `"5/h"`. Raises PolicyError, at "rate", with what to write instead."""
    if type(text) is int:
        raise PolicyError(f'rate = {text} has no unit; write it as "{text}/s" (units: {", ".join(UNITS)})', at=("rate",))
    if type(text) is not str:
        raise PolicyError(f'rate must be a text such as "10/s", got {type(text).__name__} {short(text)}', at=("rate",))
    if text.isascii() and text.isdigit():
        raise PolicyError(f'rate = {short(text)} has no unit; write it as "{text[:9]}/s"', at=("rate",))
    match = _RATE.fullmatch(text)
    if match is None:
        raise PolicyError(f'rate = {short(text)} is not a whole number, "/" and a unit, such as "10/s"', at=("rate",))
    if match[2] not in UNITS:
        raise PolicyError(f"rate = {short(text)} has an unknown unit {match[2]!r}{nearest(match[2], UNITS)}", at=("rate",))
    count = int(match[1])
    if count == 0:
        raise PolicyError(f"rate = {short(text)} allows nothing; leave the effect out instead", at=("rate",))
    if count > MAX_COUNT:
        raise PolicyError(f"rate = {short(text)} is over {MAX_COUNT}, the largest that is kept", at=("rate",))
    return Rate(count, match[2])


def check_burst(burst: object, rate: Rate | None) -> None:
    """Raise PolicyError, at "burst", unless it is a usable number beside a rate."""
    if rate is None:
        raise PolicyError(f'burst = {short(burst)} is without effect: there is no rate; add rate = "10/s"', at=("burst",))
    if type(burst) is not int or not 1 <= burst <= MAX_COUNT:
        raise PolicyError(f"burst must be a whole number from 1 to {MAX_COUNT}, got {short(burst)}", at=("burst",))
