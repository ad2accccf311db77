"""Hostile: keeps a CPU busy for ever."""

from __future__ import annotations


def main() -> None:
    """Never returns."""
    while True:
        pass
