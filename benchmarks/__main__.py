"""Run the rows and print a Markdown table: what, ours, peer, ratio, limit, PASS or FAIL."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys

ROWS = ("call", "start", "audit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"which to run: {', '.join(ROWS)} (default: all)")
    wanted = parser.parse_args().rows or list(ROWS)
    unknown = sorted(set(wanted) - set(ROWS))
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; rows: {', '.join(ROWS)}")
    print(
        f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs, uid {os.geteuid()}\n"
    )
    print("| what (p50) | fxcell | peer | ratio | limit | |")
    print("| --- | --- | --- | --- | --- | --- |")
    failed = False
    for name in wanted:
        for result in importlib.import_module(f"benchmarks.{name}").measure():
            print(result.row(), flush=True)
            failed = failed or not result.passed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
