"""From a call that ends its worker with SIGKILL to the next good answer, pools of one worker."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers import pools
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

LIMITS = {"ProcessPoolExecutor": 0.5}


def measure(effort: Effort) -> Iterator[Result]:
    sides = [Side(name, "benchmarks.peers.calls:crash", pool=name, crashes=2) for name in (OURS, *pools.NAMES)]
    yield from rows("crash to next good answer", interleaved(sides, effort.of(15, 2)), LIMITS)
