"""Run the rows and print a Markdown table: what, fxcell, peer, ratio, limit, PASS or FAIL. Exit code 1: a judged row fails."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks import curves, machine, plot, report, rows
from benchmarks.results import HEAD, Result
from benchmarks.rounds import Effort

RESULTS = Path(__file__).resolve().parent / "results"
_CURVES = "curves"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = (*rows.NAMES, _CURVES, *curves_by_name())
    parser.add_argument("rows", nargs="*", metavar="row", help=f"which to run: {', '.join(known)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work? Its figures mean little")
    parser.add_argument(
        "--out", type=Path, help="folder for latest.md and latest.png (default: none with --quick or rows)"
    )
    asked = parser.parse_args(arguments)
    for name in asked.rows:
        if name not in known:
            parser.error(f"there is no row {name!r}; rows: {', '.join(known)}")
    out = asked.out or (None if asked.quick or asked.rows else RESULTS)
    wanted = asked.rows or [*rows.NAMES, _CURVES]
    effort, begun_s = Effort(asked.quick), time.monotonic()
    about = machine.described()  # before anything is written
    print(f"{about}{', quick' if asked.quick else ''}\n\n{HEAD}", flush=True)
    results = run_rows([name for name in wanted if name in rows.NAMES], effort)
    drawn = run_curves([name for name in wanted if name not in rows.NAMES], effort)
    print(f"\n{report.summary(results)} {time.monotonic() - begun_s:.0f} s.")
    if out is not None:
        write(out, results, drawn, about + (", quick" if asked.quick else ""))
    return 0 if all(result.passed for result in results) else 1


def curves_by_name() -> dict[str, str]:
    """The name of each curve for the command line -> its file."""
    return {f"{_CURVES}.{name}": name for name in curves.NAMES}


def run_rows(names: list[str], effort: Effort) -> list[Result]:
    """Measure, print each row as it comes. A row that ends with an error of its own is a FAIL, and the others go on."""
    results = []
    for name in names:
        try:
            for result in importlib.import_module(f"benchmarks.rows.{name}").measure(effort):
                results.append(result)
                print(result.row(), flush=True)
        except Exception as error:  # noqa: BLE001 - reported, judged, and no reason to lose the rows after it
            results.append(Result(name, "", limit=0.0, note=f"{type(error).__name__}: {error}"))
            print(results[-1].row(), flush=True)
    return results


def run_curves(names: list[str], effort: Effort) -> list[curves.Curve]:
    chosen = list(curves.NAMES) if _CURVES in names else [curves_by_name()[name] for name in names]
    drawn = []
    for name in chosen:
        drawn.append(importlib.import_module(f"benchmarks.curves.{name}").measure(effort))
        print(f"\n{report.curve_table(drawn[-1])}", flush=True)
    return drawn


def write(out: Path, results: list[Result], drawn: list[curves.Curve], about: str) -> None:
    """latest.md and latest.png."""
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "latest.png"
    try:
        if drawn:
            plot.draw(drawn, picture)
    except ImportError as error:
        print(f"no plot: {error.name} is not installed", file=sys.stderr)
    (out / "latest.md").write_text(report.markdown(results, drawn, about, picture.name if picture.exists() else None))


if __name__ == "__main__":
    sys.exit(main())
