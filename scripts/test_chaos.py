"""`make test-chaos`, `make test-soak`: many commands over a pool whose workers are killed, stopped, starved; very many calls.

Run by:   .venv/bin/python scripts/test_chaos.py [--soak] [--report=FILE] [pytest arguments]
          --soak  200,000 calls instead, over which the host's memory must grow by less than 5 MiB
Reads:    FXCELL_CHAOS_COMMANDS, how many (default 20,000: about two minutes); FXCELL_CHAOS_SEED, to repeat a run;
          FXCELL_SOAK_CALLS, how many (default 200,000: less than ten minutes).
Prints:   outcomes, what was done to workers, the seed; memory.
Exit:     pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the one test file with many commands; exit code for the shell."""
    soak = "--soak" in sys.argv
    arguments = [word.replace("--report=", "--junitxml=") for word in sys.argv[1:] if word != "--soak"]
    os.environ.setdefault("FXCELL_CHAOS_COMMANDS", "20000")
    os.environ.setdefault("FXCELL_SOAK_CALLS", "200000")
    test = "tests/host/test_pool_soak.py" if soak else "tests/host/test_pool_chaos.py"
    command = [ROOT / ".venv/bin/pytest", "-q", "-s", "-o", "faulthandler_timeout=0", test]
    return subprocess.run([*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
