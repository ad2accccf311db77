"""`make test-thousand`: 1,000 hardened workers of one host at the same time, each answering; then a pool of as many.

Run by:   .venv/bin/python scripts/test_thousand.py [--report=FILE] [pytest arguments]
Reads:    FXCELL_WORKERS, how many (default 1,000: about 6 GiB of memory, one to five minutes).
Needs:    3 descriptors for each worker: a hard RLIMIT_NOFILE of 3,256 for 1,000.
Prints:   how long starts took, the memory that they take for each worker, how long stopping took.
Exit:     pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the one test file with many workers; exit code for the shell."""
    arguments = [word.replace("--report=", "--junitxml=") for word in sys.argv[1:]]
    os.environ.setdefault("FXCELL_WORKERS", "1000")
    command = [ROOT / ".venv/bin/pytest", "-q", "-s", "-o", "faulthandler_timeout=0", "tests/host/test_many_workers.py"]
    return subprocess.run([*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
