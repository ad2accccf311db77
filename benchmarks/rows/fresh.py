"""Calls with a new hardened process for each, per second, against plain processes, sandboxes, and pools set to do the same.

Judged one at a time on both sides. The last row is two at a time on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers import jails, pools
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

SLICE_S = 0.5
LIMITS = {"subprocess": 3.0}


def measure(effort: Effort) -> Iterator[Result]:
    slice_s = effort.slice_s(SLICE_S)
    one = {"workers": 1, "slice_s": slice_s, "at_once": False}
    sides = [
        Side(OURS, "benchmarks.peers.calls:fresh", pool="fxcell", **one),
        *(
            Side(jail, "benchmarks.peers.jails:starts_per_second", jail=jail, slice_s=slice_s)
            for jail in ("subprocess", *jails.NAMES)
        ),
        *(Side(pool, "benchmarks.peers.calls:fresh", pool=pool, **one) for pool in pools.NAMES),
    ]
    answers = interleaved(sides, effort.of(4))
    yield from rows("call in a fresh process each", answers, LIMITS, unit="calls/s", higher=True)
    if effort.quick:
        return
    sides = [
        Side(OURS, "benchmarks.peers.calls:fresh", pool="fxcell", workers=2, slice_s=slice_s, at_once=True),
        Side("subprocess", "benchmarks.peers.jails:starts_per_second", jail="subprocess", slice_s=slice_s, at_once=2),
    ]
    answers = interleaved(sides, effort.of(4))
    yield from rows("call in a fresh process each, two at once", answers, {}, unit="calls/s", higher=True)
