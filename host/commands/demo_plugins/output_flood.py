"""Hostile: writes to stdout without end."""

from __future__ import annotations

import os


def main() -> None:
    """Never returns."""
    while True:
        os.write(1, b"spam " * 10_000)
