"""Time of a start against how many workers live already, each step's starts back to back."""

from __future__ import annotations

from benchmarks.curves import Curve
from benchmarks.curves.lines import by_turn
from benchmarks.rounds import OURS, Effort, interleaved
from benchmarks.sides import Side

STEP = 10


def measure(effort: Effort) -> Curve:
    steps = effort.of(20, 2)
    answers = interleaved([Side(OURS, "benchmarks.peers.ours:starts_beside", step=STEP)], steps)
    lines, notes = by_turn(answers, steps)
    living = [float(STEP * step) for step in range(steps)]
    return Curve("Start against living workers", "workers that live already", "start, p50", living, lines, notes=notes)
