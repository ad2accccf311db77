"""The curves as one picture."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from benchmarks.curves import Curve
from benchmarks.results import shown

_COLUMNS = 2
_WIDE = 1000
"""From this ratio of highest to lowest on, an axis names powers of ten only."""


def draw(curves: list[Curve], path: Path) -> None:
    """Write a PNG. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(curves) // _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(13, 4.6 * rows), squeeze=False, layout="constrained")
    for place, curve in zip(axes.flat, curves, strict=False):
        _draw_one(place, curve)
    for place in list(axes.flat)[len(curves) :]:
        place.set_visible(False)
    # Software and date are left out: the same run gives the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_one(place: Any, curve: Curve) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

    for name, ys in curve.lines.items():
        ours = name.startswith("fxcell")
        place.plot(curve.xs, ys, marker="o", markersize=4, linestyle="-" if ours else "--", label=name)
    if "x" in curve.log:
        place.set_xscale("log", base=2)
    if "y" in curve.log:
        place.set_yscale("log")
        figures = [y for ys in curve.lines.values() for y in ys if not math.isnan(y)]
        wide = bool(figures) and max(figures) > min(figures) * _WIDE
        place.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        place.yaxis.set_minor_formatter(NullFormatter())
    else:
        place.set_ylim(bottom=0)
        if curve.y_unit == "B":
            place.yaxis.set_major_locator(MultipleLocator(2**20))
    if "x" in curve.log or curve.x == "workers":
        place.set_xticks(curve.xs[:: 1 + len(curve.xs) // 9])
    place.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x, curve.x_unit) if curve.x_unit else f"{x:g}"))
    place.xaxis.set_minor_formatter(NullFormatter())
    place.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _short(y, curve.y_unit)))
    place.set(title=curve.title, xlabel=curve.x, ylabel=curve.y)
    place.tick_params(axis="x", labelsize=8)
    place.grid(visible=True, alpha=0.3)
    place.legend(fontsize=8)


def _short(figure: float, unit: str) -> str:
    """A figure for an axis: without the zeros after the point."""
    return re.sub(r"\.0+(?= )", "", shown(figure, unit))
