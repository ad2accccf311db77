"""64 MiB to a worker and back as the result of an echo, both ways counted, as an array and as bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from benchmarks.peers import pools
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

SIZE_MIB, QUICK_SIZE_MIB = 64, 1
LIMITS = {"ndarray": 6.0, "bytes": 4.0}


def measure(effort: Effort) -> Iterator[Result]:
    size_mib = effort.of(SIZE_MIB, QUICK_SIZE_MIB)
    for kind, limit in LIMITS.items():
        sides = [
            Side(pool, "benchmarks.peers.calls:there_and_back", pool=pool, kind=kind, sizes=[size_mib * 2**20], calls=3)
            for pool in (OURS, *(effort.some(pools.NAMES) if kind == "ndarray" else pools.NAMES))
        ]
        answers = interleaved(sides, effort.of(5))
        mb = 2 * size_mib * 2**20 / 1e6
        limits = {} if effort.quick else {"ProcessPoolExecutor": limit}  # another size is another row: not judged
        for row in rows(f"{size_mib} MiB {kind} there and back", answers, limits, higher=True):
            yield dataclasses.replace(row, ours=mb / row.ours, theirs=mb / row.theirs, unit="MB/s")

