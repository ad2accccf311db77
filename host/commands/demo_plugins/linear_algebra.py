"""Honest: numpy solves 300 equations."""

from __future__ import annotations

import numpy as np


def main(size: int) -> float:
    """The largest error of a solved system of equations."""
    random = np.random.default_rng(7)
    matrix, wanted = random.random((size, size)), random.random(size)
    solution = np.linalg.solve(matrix, matrix @ wanted)
    return float(np.abs(solution - wanted).max())
