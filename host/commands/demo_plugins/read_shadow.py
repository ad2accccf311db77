"""Hostile: opens the host's password file."""

from __future__ import annotations

from pathlib import Path


def main() -> str:
    """The file, if the sandbox leaks."""
    return Path("/etc/shadow").read_text(encoding="utf-8")
