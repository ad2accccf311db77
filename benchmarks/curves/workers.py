"""Throughput against workers: maps of no-ops, and of computations of about 1 ms each."""

from __future__ import annotations

from benchmarks.curves import Curve
from benchmarks.results import median
from benchmarks.rounds import OURS, Effort, interleaved
from benchmarks.sides import Side

SLICE_S, ROUNDS_OF_1_MS = 0.3, 12


def measure(effort: Effort) -> Curve:
    counts = [1, 2, 4, 8][: effort.of(4, 2)]
    lines: dict[str, list[float]] = {}
    notes: list[str] = []
    for count in counts:
        sides = []
        for pool in (OURS, "ProcessPoolExecutor"):
            no_ops = {"pool": pool, "workers": count, "chunk": 1, "slice_s": effort.slice_s(SLICE_S)}
            sides.append(Side(f"{pool}, no-ops", "benchmarks.peers.calls:no_ops", **no_ops))
            work = {"pool": pool, "workers": count, "items": effort.of(300, 20), "rounds": ROUNDS_OF_1_MS}
            sides.append(Side(f"{pool}, 1 ms each", "benchmarks.peers.calls:calculations", **work))
        answers = interleaved(sides, effort.of(3))
        for side in sides:
            lines.setdefault(side.name, []).append(answers.median(side.name))
        notes += [f"{name}, {count} workers: {why}" for name, why in {**answers.absent, **answers.failed}.items()]
    known = {name: values for name, values in lines.items() if median(values) == median(values)}
    return Curve(
        "Map against workers", "workers", "items per second", [float(count) for count in counts], known, y_unit="items/s",
        log="xy", notes=tuple(notes),
    )  # fmt: skip
