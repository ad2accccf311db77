"""`make test-pythons`: the allowlist and the crash evidence, proved again on each Python this machine has.

Run by:   .venv/bin/python scripts/test_pythons.py [--report=FILE] [pytest arguments]
Prints:   which of Python 3.11, 3.12 and 3.13 are there and which are not, and pytest's output for each.
Exit:     0 only when every run passed. A version that is not here is named, and is no failure.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pythons

TESTS = (
    "tests/sandbox/test_syscall_count.py",
    "tests/sandbox/test_filter.py",
    "tests/sandbox/test_compute_works.py",
    "tests/host/test_crash_evidence.py",
    "tests/host/test_crash_endings.py",
)


def main() -> int:
    """Make the venvs, run the tests; exit code for the shell."""
    report, arguments = pythons.report_of(sys.argv[1:])
    found = pythons.find()
    for version in pythons.VERSIONS:
        print(f"Python {version[0]}.{version[1]}: {found.get(version, 'not on this machine, not tested')}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="test-pythons-") as folder:
        reports = []
        for (major, minor), path in found.items():
            name = f"Python {major}.{minor}"
            print(f"\n== {name}", flush=True)
            try:
                python = pythons.venv_for(path, ["images"])
            except subprocess.CalledProcessError as error:
                print(f"{name}: no venv for it: {' '.join(map(str, error.cmd))} ended with {error.returncode}", flush=True)
                failed.append(name)
                continue
            reports.append(Path(folder, f"{major}.{minor}.xml"))
            command = [pythons.pytest_of(python), "-rs", "-p", "no:cacheprovider", f"--junitxml={reports[-1]}"]
            done = subprocess.run([*command, *TESTS, *arguments], cwd=pythons.ROOT, stdin=subprocess.DEVNULL, check=False)
            if done.returncode:
                failed.append(name)
        if report is not None:
            pythons.write_report(report, reports)
    if failed:
        print(f"NOT PASSED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
