"""Latency of an echo against the size of its value, 64 B to 256 MiB, as bytes and as an array."""

from __future__ import annotations

from benchmarks.curves import Curve
from benchmarks.curves.lines import by_turn
from benchmarks.rounds import OURS, Effort, interleaved
from benchmarks.sides import Side


def measure(effort: Effort) -> Curve:
    sizes = [64 * 4**power for power in range(effort.of(12, 6))]
    sides = [
        Side(
            f"{pool}, {kind}",
            "benchmarks.peers.calls:there_and_back",
            pool=pool,
            kind=kind,
            sizes=sizes,
            calls=effort.of(100, 5),
        )
        for pool in (OURS, "ProcessPoolExecutor")
        for kind in ("bytes", "ndarray")
    ]
    lines, notes = by_turn(interleaved(sides, len(sizes)), len(sizes))
    return Curve(
        "Echo against payload", "payload", "there and back, p50", [float(size) for size in sizes], lines, x_unit="B",
        log="xy", notes=notes,
    )  # fmt: skip
