"""Map of no-ops over two workers, calls per second, against the others item by item and in chunks of 100.

fxcell has no option for chunks: it decides by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers import pools
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

WORKERS, SLICE_S = 2, 0.4
LIMITS = {"ProcessPoolExecutor, chunks of 1": 5.0, "ProcessPoolExecutor, chunks of 100": 1.0}


def measure(effort: Effort) -> Iterator[Result]:
    common = {"workers": WORKERS, "slice_s": effort.slice_s(SLICE_S)}
    sides = [Side(OURS, "benchmarks.peers.calls:no_ops", pool="fxcell", chunk=1, **common)]
    for chunk in (1, 100):
        for pool in pools.NAMES if chunk == 1 else effort.some(pools.NAMES):
            name = f"{pool}, chunks of {chunk}"
            sides.append(Side(name, "benchmarks.peers.calls:no_ops", pool=pool, chunk=chunk, **common))
    answers = interleaved(sides, effort.of(7))
    yield from rows(f"map of no-ops, {WORKERS} workers", answers, LIMITS, unit="calls/s", higher=True)
