"""Hostile: answers another command than the one it was given, in perfect form."""

from __future__ import annotations

from typing import Any

from fxcell import run
from fxcell.policies import values


def main(number: int) -> str:
    """An answer that the host must not take."""
    runner: Any = run
    runner.channel.send_value("result", number, values.pack("forged"))
    return "believed"
