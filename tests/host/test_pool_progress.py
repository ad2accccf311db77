"""The progress of a map: shown on a terminal, not elsewhere, and never at the price of a result."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.usefixtures("nothing_left")

_MAP_WITH_PROGRESS = """
from fxcell import Pool, zef_function

@zef_function
def half(n):
    return 1 // (n % 5)

with Pool(2) as pool:
    print(len(pool.map(half, range(500), on_error="return", progress="halving [x]")))
"""


_LEAVE = """
import os, sys
import fxcell.host
fxcell.host.shutdown()
sys.stdout.flush()
os._exit(0)  # the interpreter's own end flushes a standard error that is not there
"""


def test_progress_is_shown_on_a_terminal_and_not_elsewhere():
    command = [sys.executable, "-c", _MAP_WITH_PROGRESS]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("500\n", "")
    outer, inner = os.openpty()
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=inner)
        os.close(inner)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: everybody on the other side has closed it
            while data := os.read(outer, 4096):
                seen += data
        assert process.communicate(timeout=30)[0] == b"500\n"
    finally:
        os.close(outer)
    assert b"halving [x]" in seen
    assert b"500/500" in seen
    assert b"100 failed" in seen


def test_progress_without_a_standard_error_or_with_a_terminal_that_went_away_loses_no_result():
    gone = """
import os, sys
outer, inner = os.openpty()
sys.stderr = os.fdopen(inner, "w")
os.close(outer)
"""
    for start in ("import sys; sys.stderr = None\n", gone):
        done = subprocess.run(
            [sys.executable, "-c", start + _MAP_WITH_PROGRESS + _LEAVE],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"500\n")
