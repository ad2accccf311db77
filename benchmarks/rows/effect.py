"""Round trip of an effect from inside a worker (FX.Now), against the raw ping-pong; with one CPU each, and both on one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks import placing
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

CALLS, SLICE_S = 200, 0.2
PEER = "socketpair ping-pong"
LIMITS = {PEER: 1.2}


def measure(effort: Effort) -> Iterator[Result]:
    cpus, what = placing.two_cpus(), "effect from inside (FX.Now)"
    if cpus is None:
        yield Result(f"{what}, one CPU each", PEER, limit=LIMITS[PEER], skipped="this process may use one CPU only")
    else:
        yield from _measure(f"{what}, one CPU each", *cpus, effort.of(20, 2), LIMITS)
    if effort.quick:
        return
    one = min(os.sched_getaffinity(0))
    yield from _measure(f"{what}, both on one CPU", one, one, effort.of(10), {})


def _measure(what: str, here: int, there: int, rounds: int, limits: dict[str, float]) -> Iterator[Result]:
    sides = [
        Side(OURS, "benchmarks.peers.ours:effect", here=here, there=there, calls=CALLS),
        Side(PEER, "benchmarks.peers.raw:ping_pong", here=here, there=there, calls=CALLS, slice_s=SLICE_S),
    ]
    yield from rows(what, interleaved(sides, rounds), limits)
