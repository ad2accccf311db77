"""`make test`: lint, types, contracts, wheel, the tests as the caller and, for root, as an ordinary user; then totals.

Run by:   .venv/bin/python scripts/run_tests.py [--random] [--chaos] [--kernel-short | --kernel-lab]
              [--compatibility] [--pythons] [pytest arguments]
          --random         also 10,000 random hostile actions against one host (scripts/test_random.py)
          --chaos          also 20,000 commands over a pool whose workers are killed, stopped, starved (scripts/test_chaos.py)
          --kernel-short   also the layers alone on Debian's kernel in a virtual machine (scripts/kernel_lab.py --short)
          --kernel-lab     also the core of the tests on Debian's kernel in a virtual machine (scripts/kernel_lab.py)
          --compatibility  also CPython's own tests and big libraries in workers (scripts/test_compatibility.py)
          --pythons        also the allowlist and the crash evidence on every Python here (scripts/test_pythons.py)
Prints:   each part's own output; last line `N passed, N failed, N skipped`, all pytest runs added up.
Reads:    FXCELL_SUITES_UNTIL_S: after so many seconds no suite of those with dashes is begun; it says which
Exit:     0 only when every part passed. A part that fails does not stop the later ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
MORE = {
    "--random": ("random hostile actions", "test_random.py"),
    "--chaos": ("commands over a pool in chaos", "test_chaos.py"),
    "--kernel-short": ("layers on another kernel", "kernel_lab.py --short"),
    "--kernel-lab": ("core of the tests on another kernel", "kernel_lab.py"),
    "--compatibility": ("compatibility", "test_compatibility.py"),
    "--pythons": ("other versions of Python", "test_pythons.py"),
}
UNTIL_S = float(os.environ.get("FXCELL_SUITES_UNTIL_S", "inf"))
"""After so many seconds no further suite is begun: on a slow machine the tests themselves come first."""
SHOWN, WHY_CHARACTERS = 10, 400
"""How many failures are told again at the end, where a log that was cut still has them, and how much of each."""
CHECKS = {
    "lint": [BIN / "ruff", "check", "--quiet", "."],
    "types": [BIN / "mypy"],
    "contracts": [BIN / "lint-imports", "--no-logo"],
    "wheel": [BIN / "python", ROOT / "scripts" / "wheel_test.py"],
}


def main() -> int:
    """Run every part; exit code for the shell."""
    started_s = time.monotonic()
    arguments = [argument for argument in sys.argv[1:] if argument not in MORE]
    failed = [name for name, command in CHECKS.items() if not passes(name, command)]
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="test-results-") as folder:
        # Not `python -m pytest`, which puts the current folder first on the path: .venv itself must find fxcell.
        report, user_report = Path(folder, "caller.xml"), Path(folder, "user.xml")
        who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
        if not passes(f"tests as {who}", [BIN / "pytest", "-rs", f"--junitxml={report}", *arguments]):
            failed.append(f"tests as {who}")
        add_counts(totals, failures, report)
        if os.geteuid() == 0:
            # Not at the same time: each suite alone keeps two cores busy, and deadlines are part of what is tested.
            command = [BIN / "python", ROOT / "scripts" / "test_as_user.py", f"--report={user_report}", *arguments]
            if not passes("tests as an ordinary user", command):
                failed.append("tests as an ordinary user")
            add_counts(totals, failures, user_report)
        for option, (title, script) in MORE.items():
            if option in sys.argv and time.monotonic() - started_s > UNTIL_S:
                print(f"\n== {title}\nskipped: {UNTIL_S:.0f} s are over; run scripts/{script} by itself", flush=True)
            elif option in sys.argv:
                report = Path(folder, f"{option}.xml")
                name, *words = script.split()
                if not passes(title, [BIN / "python", ROOT / "scripts" / name, *words, f"--report={report}"]):
                    failed.append(title)
                add_counts(totals, failures, report)
    print()
    for failure in failures[:SHOWN]:
        print(failure)
    if len(failures) > SHOWN:
        print(f"and {len(failures) - SHOWN} more")
    if failed:
        print(f"NOT PASSED: {', '.join(failed)}")
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped", flush=True)
    return 1 if failed else 0


def passes(title: str, command: list[str | Path]) -> bool:
    """Run one part under a heading."""
    print(f"\n== {title}", flush=True)
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0


def add_counts(totals: dict[str, int], failures: list[str], report: Path) -> None:
    """Add pytest's own counts of one run, and what failed. No whole report: the part died, which its exit code tells."""
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))
    except (FileNotFoundError, ET.ParseError) as error:
        print(f"no counts of this part: {report.name}: {error}", flush=True)
        return
    for suite in suites:
        count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        bad = count["failures"] + count["errors"]
        totals["failed"] += bad
        totals["skipped"] += count["skipped"]
        totals["passed"] += max(0, count["tests"] - bad - count["skipped"])
        for case in suite.iter("testcase"):
            for outcome in [*case.iter("failure"), *case.iter("error")]:
                told = (outcome.text or "").strip()
                why = " ".join((outcome.get("message") or told).split())[:WHY_CHARACTERS]
                where = told.rpartition("\n")[2][:WHY_CHARACTERS]
                failures.append(f"{report.stem}: {case.get('classname')}::{case.get('name')}: {why} ({where})")


if __name__ == "__main__":
    sys.exit(main())
