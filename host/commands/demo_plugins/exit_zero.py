"""Hostile: ends with success instead of answering."""

from __future__ import annotations

import os


def main() -> None:
    """Never returns."""
    os._exit(0)
