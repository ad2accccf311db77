"""Turns of sides as lines of a curve."""

from __future__ import annotations

from benchmarks.results import NAN, median
from benchmarks.rounds import Answers


def by_turn(answers: Answers, count: int) -> tuple[dict[str, list[float]], tuple[str, ...]]:
    """Side -> the median of each turn, nan for turns that never came; and why any did not."""
    lines = {
        name: ([median(turn) for turn in turns] + [NAN] * count)[:count]
        for name, turns in answers.rounds.items()
        if turns
    }
    notes = {**answers.absent, **answers.failed}
    return lines, tuple(f"{name}: {why}" for name, why in notes.items())
