"""`make test-compatibility`: CPython's own tests and libraries with native code in workers, and rules nobody needs.

Run by:   .venv/bin/python scripts/test_compatibility.py [--report=FILE] [pytest arguments], after set_up.py --extra compatibility
Does:     as root installs strace where it is missing; runs tests/compatibility with .venv, or, where that has no `test`
          package (Debian keeps it in libpython3.11-testsuite), in a venv of another Python 3.11 to 3.13 that has one.
Exit:     pytest's. What cannot run here is skipped with its reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pythons
import set_up

FOLDER = "tests/compatibility"


def main() -> int:
    """Find what is needed, run; exit code for the shell."""
    report, arguments = pythons.report_of(sys.argv[1:])
    if shutil.which("strace") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        set_up.install_system_packages(["strace"])
    python = set_up.VENV_PYTHON
    if not pythons.has_regression_tests(python):
        other = next((path for path in pythons.find().values() if pythons.has_regression_tests(path)), None)
        if other is not None:
            print(f"{python} has no `test` package: running with {other}", flush=True)
            python = pythons.venv_for(other, ["images", "compatibility"])
    chosen = any(argument.startswith(FOLDER) for argument in arguments)
    command = [pythons.pytest_of(python), "-rs", *([f"--junitxml={report}"] if report else []), *arguments]
    done = subprocess.run([*command, *([] if chosen else [FOLDER])], cwd=pythons.ROOT, stdin=subprocess.DEVNULL, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
