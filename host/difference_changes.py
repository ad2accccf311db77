"""One change between two policies, and what every kind of rule can differ in: how fast, and whether somebody is asked.

Whatever cannot be judged as narrower is told as what may allow more, on both sides: who compares two policies looks for
what the second opens, and must not read "nothing" where this version cannot say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fxcell.policies.rates import UNITS, Rate, parse_rate
from fxcell.policies.rule import Rule


class Side(StrEnum):
    """Whose policy allows more by a change.

    OTHER: they differ, and neither allows more.      SAME: they differ in writing, and allow the same.
    """

    A = "a"
    B = "b"
    OTHER = "other"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. at: the key, such as "effects.HTTPRequest.hosts"; text: what that side allows, in words."""

    side: Side
    at: str
    text: str


def sides(a: Any, b: Any) -> tuple[tuple[Side, Any, Any], ...]:
    """(side, what it has, what the other has) for both directions."""
    return (Side.B, b, a), (Side.A, a, b)


def unjudged(at: str, before: str, after: str) -> Iterator[Change]:
    """A difference of which nobody here can say who allows more by it: each of them may."""
    for side, more, less in sides(before, after):
        yield Change(side, at, f"{more}; the other {less}. It may allow more: this version cannot compare them")


def asking(at: str, a: Rule, b: Rule) -> Iterator[Change]:
    """Whether somebody must agree to each."""
    for side, more, less in sides(a, b):
        if less.ask and not more.ask:
            yield Change(side, f"{at}.ask", "without asking anybody; for the other somebody must agree to each")


def pace(at: str, a: Rule, b: Rule) -> Iterator[Change]:
    """How many over time, and how many at once: two bounds, for a slower rate can let more through at once."""
    for side, more, less in sides(a, b):
        if less.rate is None:
            continue
        bound, burst = _read(less)
        if more.rate is None:
            yield Change(side, f"{at}.rate", f"as fast as it likes; the other {bound}")
            continue
        rate, at_once = _read(more)
        # Whole numbers: fractions of a second would make 1/s and 60/min differ.
        if rate.number * UNITS[bound.unit] > bound.number * UNITS[rate.unit]:
            yield Change(side, f"{at}.rate", f"{rate}; the other {bound}")
        if at_once > burst:
            yield Change(side, f"{at}.burst", f"{at_once:,} at once; the other {burst:,}")


def _read(rule: Rule) -> tuple[Rate, int]:
    """The rate, and how many it lets through at once: the rate's own number where no burst is written."""
    rate = parse_rate(rule.rate)
    return rate, rate.number if rule.burst is None else rule.burst
