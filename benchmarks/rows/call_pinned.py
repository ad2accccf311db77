"""Round trip of a no-op with caller and worker on the same CPU, against the same ping-pong and the same pool there."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

CALLS, SLICE_S = 200, 0.2
LIMITS = {"socketpair ping-pong": 2.5}


def measure(effort: Effort) -> Iterator[Result]:
    cpu = min(os.sched_getaffinity(0))
    place = {"here": cpu, "there": cpu, "calls": CALLS, "slice_s": SLICE_S}
    sides = [
        Side(OURS, "benchmarks.peers.ours:command", **place),
        Side("socketpair ping-pong", "benchmarks.peers.raw:ping_pong", **place),
        Side("ProcessPoolExecutor", "benchmarks.peers.calls:call", pool="ProcessPoolExecutor", **place),
    ]
    yield from rows("warm no-op call, both on one CPU", interleaved(sides, effort.of(20, 2)), LIMITS)
