"""Hostile: abort()."""

from __future__ import annotations

import os


def main() -> None:
    """Never returns."""
    os.abort()
