"""One measured row."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Medians of one run, in seconds. skipped: why there is no figure."""

    what: str
    peer: str
    ours_s: float = 0.0
    peer_s: float = 0.0
    limit: float = 0.0
    skipped: str = ""

    @property
    def ratio(self) -> float:
        return self.ours_s / self.peer_s if self.peer_s else float("nan")

    @property
    def passed(self) -> bool:
        return bool(self.skipped) or self.ratio <= self.limit

    def row(self) -> str:
        if self.skipped:
            return f"| {self.what} | | {self.peer} | | <= {self.limit:g} x | skipped: {self.skipped} |"
        verdict = "PASS" if self.passed else "FAIL"
        return (
            f"| {self.what} | {_shown(self.ours_s)} | {self.peer}: {_shown(self.peer_s)} | {self.ratio:.2f} x "
            f"| <= {self.limit:g} x | {verdict} |"
        )


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 0.001 else f"{seconds * 1e3:.2f} ms"


def median(samples: list[float]) -> float:
    return statistics.median(samples)
