"""The same computation inside a worker and in a plain process, each by its own clock, both on one CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

ROUNDS = 500
LIMITS = {"the same code outside": 1.03}


def measure(effort: Effort) -> Iterator[Result]:
    cpu = max(os.sched_getaffinity(0))
    sides = [
        Side(OURS, "benchmarks.peers.ours:inside", rounds=ROUNDS, cpu=cpu),
        Side("the same code outside", "benchmarks.peers.raw:outside", rounds=ROUNDS, cpu=cpu),
    ]
    yield from rows("computation inside the sandbox", interleaved(sides, effort.of(60, 3)), LIMITS)
