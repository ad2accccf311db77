"""Hostile: processes that start processes."""

from __future__ import annotations

import contextlib
import os
import time


def main() -> None:
    """Never returns where forking is allowed; goes on when a limit stops it for the moment."""
    while True:
        with contextlib.suppress(BlockingIOError):
            os.fork()
        time.sleep(0.001)
