"""Memory of an idle worker alone (USS), against how many there are."""

from __future__ import annotations

from benchmarks.curves import Curve
from benchmarks.curves.lines import by_turn
from benchmarks.rounds import OURS, Effort, interleaved
from benchmarks.sides import Side


def measure(effort: Effort) -> Curve:
    counts = [1, 10, 50, 100][: effort.of(4, 2)]
    sides = [
        Side(name, "benchmarks.peers.ours:memory", counts=counts, supervisors=supervisors)
        for name, supervisors in ((OURS, False), (f"{OURS}, with its supervisor", True))
    ]
    lines, notes = by_turn(interleaved(sides, len(counts)), len(counts))
    xs = [float(count) for count in counts]
    return Curve("Memory of a worker", "workers", "USS each, p50", xs, lines, y_unit="B", notes=notes)
