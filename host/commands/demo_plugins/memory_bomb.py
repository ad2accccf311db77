"""Hostile: takes memory until there is none."""

from __future__ import annotations


def main() -> None:
    """Never returns."""
    kept = []
    while True:
        kept.append(b"\xff" * 2**22)
