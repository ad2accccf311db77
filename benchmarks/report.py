"""The run as Markdown: machine, table, curves as tables, link to the plot."""

from __future__ import annotations

import math

from benchmarks.curves import Curve
from benchmarks.results import HEAD, Result, shown


def markdown(results: list[Result], curves: list[Curve], machine: str, plot: str | None) -> str:
    """The whole document. plot: file name of the picture beside it, or None."""
    parts = ["# Benchmarks", "", f"Written by `make bench`. {machine}.", "", summary(results), "", table(results), ""]
    parts += [
        ("Medians of interleaved rounds; the ratio is fxcell's figure to the peer's. `—`: shown, not judged. "
        "`skipped`: the peer is not installed, or cannot run here."), "",
    ]  # fmt: skip
    if curves:
        parts += ["## Growth", ""]
    if curves and plot:
        parts += [f"![growth curves]({plot})", ""]
    for curve in curves:
        parts += [curve_table(curve), ""]
    return "\n".join(parts)


def summary(results: list[Result]) -> str:
    """One line: how many judged rows passed, and which did not."""
    judged = [result for result in results if result.limit is not None and not result.skipped]
    failed = [result for result in judged if not result.passed]
    skipped = [result for result in results if result.limit is not None and result.skipped]
    line = f"{len(judged) - len(failed)} of {len(judged)} judged rows PASS"
    if failed:
        line += "; FAIL: " + "; ".join(f"{result.what} / {result.peer}" for result in failed)
    if skipped:
        line += f"; {len(skipped)} judged rows skipped"
    return line + "."


def table(results: list[Result]) -> str:
    return "\n".join([HEAD, *(result.row() for result in results)])


def curve_table(curve: Curve) -> str:
    """One curve: a row per x, a column per line."""
    names = list(curve.lines)
    head = f"**{curve.title}** ({curve.y})\n\n| {curve.x} | {' | '.join(names)} |\n| ---: |{' ---: |' * len(names)}"
    body = []
    for number, x in enumerate(curve.xs):
        cells = [shown(x, curve.x_unit) if curve.x_unit else f"{x:g}"]
        cells += ["" if math.isnan(y[number]) else shown(y[number], curve.y_unit) for y in curve.lines.values()]
        body.append(f"| {' | '.join(cells)} |")
    notes = [f"\n{note}" for note in curve.notes]
    return "\n".join([head, *body, *notes])
