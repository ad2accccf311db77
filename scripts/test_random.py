"""`make test-random`: random hostile actions against one host, which must answer rightly after each.

Run by:   .venv/bin/python scripts/test_random.py [--report=FILE] [pytest arguments]
Reads:    FXCELL_RANDOM_ACTIONS, how many at least (default 10,000: three to five minutes); FXCELL_RANDOM_SEED, to repeat a run.
Prints:   how many actions of how many kinds, their ends and the seed.
Exit:     pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the one test file with many actions; exit code for the shell."""
    arguments = [word.replace("--report=", "--junitxml=") for word in sys.argv[1:]]
    os.environ.setdefault("FXCELL_RANDOM_ACTIONS", "10000")
    command = [ROOT / ".venv/bin/pytest", "-q", "-s", "-o", "faulthandler_timeout=0", "tests/escapes/test_random_actions.py"]
    return subprocess.run([*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
