"""Honest: the commonest words of a text."""

from __future__ import annotations

import collections
import re


def main(text: str) -> list[tuple[str, int]]:
    """The three commonest words, each with its count."""
    return collections.Counter(re.findall(r"[a-z]+", text.lower())).most_common(3)
