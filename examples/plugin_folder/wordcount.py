"""Counts the words of a file that the host reads for it: this code has no file system of its own."""

from collections import Counter

from words import words_of

from fxcell import *


def main(path: str, most: int = 3) -> dict[str, int]:
    text = (FX.ReadFile(path=path) | run).decode()
    FX.Print(content=f"read {len(text)} characters") | run
    return dict(Counter(words_of(text)).most_common(most))
