"""Hostile: asks the host for a file below a granted folder that is not below it."""

from __future__ import annotations

from fxcell import FX, run


def main(path: str) -> bytes:
    """The file, if the rules leak."""
    content: bytes = FX.ReadFile(path=path) | run
    return content
