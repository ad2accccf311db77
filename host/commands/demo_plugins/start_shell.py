"""Hostile: becomes a shell."""

from __future__ import annotations

import os


def main() -> None:
    """Never returns, if the sandbox leaks."""
    os.execv("/bin/sh", ["sh", "-c", "id"])  # noqa: S606 - it must not get there
