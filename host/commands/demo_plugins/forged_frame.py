"""Hostile: writes to the worker's own channel: a frame that says it has 4 GiB."""

from __future__ import annotations

import os
import struct

_CHANNEL = 3


def main() -> str:
    """An answer that the host must not take."""
    os.write(_CHANNEL, b"FXC1" + struct.pack("<I", 0xFFFF_FFFF) + b"\xff" * 1000)
    return "believed"
