"""One row of the table: two figures, their ratio, and whether that is good enough.

A row is judged when it has a limit. `skipped` says why a peer was not there: never a failure. `note` says why a peer that
was there gave no figure: a failure where the row is judged, because a ratio that is not known meets no limit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

NAN = math.nan
_WORSE_AFTER_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Result:
    """Medians of one run.

    ours, theirs: in `unit`: "s", "B", or a rate such as "calls/s". higher: True where more is better.
    limit:        of ours / theirs: at most so much, or at least where higher is better. None: shown, not judged.
    """

    what: str
    peer: str
    ours: float = NAN
    theirs: float = NAN
    unit: str = "s"
    limit: float | None = None
    higher: bool = False
    skipped: str = ""
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else NAN

    @property
    def passed(self) -> bool:
        """False only for a judged row that misses its limit, or whose ratio is not known."""
        if self.limit is None or self.skipped:
            return True
        if not math.isfinite(self.ratio):
            return False
        over = (self.limit - self.ratio) if self.higher else (self.ratio - self.limit)
        return over <= _WORSE_AFTER_ROUNDING

    @property
    def verdict(self) -> str:
        if self.skipped:
            return f"skipped: {self.skipped}"
        shown = "—" if self.limit is None else "PASS" if self.passed else "FAIL"
        return f"{shown} ({self.note})" if self.note else shown

    def row(self) -> str:
        """The row as Markdown, under HEAD."""
        ratio = "" if math.isnan(self.ratio) else f"{self.ratio:.3g} x"
        limit = "" if self.limit is None else f"{'>=' if self.higher else '<='} {self.limit:g} x"
        cells = (
            self.what,
            shown(self.ours, self.unit),
            self.peer,
            shown(self.theirs, self.unit),
            ratio,
            limit,
            self.verdict,
        )
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


HEAD = "| what | fxcell | peer | peer's figure | ratio | limit | |\n| --- | ---: | --- | ---: | ---: | --- | --- |"


def shown(figure: float, unit: str) -> str:
    """A figure with a unit that people read."""
    if math.isnan(figure):
        return ""
    if unit == "s":
        return f"{figure * 1e6:.1f} µs" if figure < 0.001 else f"{figure * 1e3:.2f} ms" if figure < 1 else f"{figure:.2f} s"
    if unit == "B":
        mib, kib = figure / 2**20, figure / 2**10
        return f"{mib:.{2 * (mib < 100)}f} MiB" if mib >= 1 else f"{kib:.0f} KiB" if kib >= 1 else f"{figure:.0f} B"
    return f"{figure:,.0f} {unit}" if figure >= 100 else f"{figure:.1f} {unit}"


def median(samples: Iterable[float]) -> float:
    """The median, or nan of nothing."""
    kept = list(samples)
    return statistics.median(kept) if kept else NAN
