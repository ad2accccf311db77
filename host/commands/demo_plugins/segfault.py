"""Hostile: reads address 0."""

from __future__ import annotations

import ctypes


def main() -> None:
    """Never returns."""
    ctypes.string_at(0)
