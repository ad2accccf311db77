"""Fetches one address through FX.HTTPRequest: honest or not, as the address is."""

from __future__ import annotations

from fxcell import FX, run


def main(url: str) -> str:
    """Status and text of the answer."""
    answer = FX.HTTPRequest(url=url) | run
    return f"{answer['status']} {answer['body'].decode()}"
