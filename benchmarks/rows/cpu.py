"""Pure computation over two workers, against the same in one plain process and against pools of two."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.peers import pools
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

WORKERS, ITEMS, ROUNDS = 2, 40, 250
LIMITS = {"one process": 1.9}


def measure(effort: Effort) -> Iterator[Result]:
    what = f"computation, {WORKERS} workers"
    if len(os.sched_getaffinity(0)) < WORKERS:
        yield Result(what, "one process", limit=1.9, higher=True, skipped="this process may use one CPU only")
        return
    work = {"items": effort.of(ITEMS, 4), "rounds": ROUNDS}
    sides = [
        Side(OURS, "benchmarks.peers.calls:calculations", pool="fxcell", workers=WORKERS, **work),
        Side("one process", "benchmarks.peers.raw:calculations", **work),
        *(
            Side(pool, "benchmarks.peers.calls:calculations", pool=pool, workers=WORKERS, **work)
            for pool in effort.some(pools.NAMES)
        ),
    ]
    yield from rows(what, interleaved(sides, effort.of(7)), LIMITS, unit="items/s", higher=True)
