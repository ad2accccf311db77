"""How figures grow: one file per curve, measure(effort) gives its points.

payload (latency against size), workers (throughput against workers), starts (start time against living workers), memory
(memory against workers).
"""

from __future__ import annotations

from dataclasses import dataclass

NAMES = ("payload", "workers", "starts", "memory")


@dataclass(frozen=True, slots=True)
class Curve:
    """Lines over common x values.

    x, y: what the axes show; x_unit, y_unit: as Result.unit, "" for a plain number.
    lines: name -> y for each of xs, nan where there is none. log: which axes are logarithmic: "", "x", "y" or "xy".
    """

    title: str
    x: str
    y: str
    xs: list[float]
    lines: dict[str, list[float]]
    x_unit: str = ""
    y_unit: str = "s"
    log: str = ""
    notes: tuple[str, ...] = ()
