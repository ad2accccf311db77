"""Honest: hexadecimal digits of pi by the Bailey-Borwein-Plouffe formula: any range, without those before it."""

from __future__ import annotations


def main(start: int, count: int) -> str:
    """`count` digits from the `start`-th after the point, counted from 0."""
    return "".join(_digit(place) for place in range(start, start + count))


def _digit(place: int) -> str:
    total = 4 * _series(1, place) - 2 * _series(4, place) - _series(5, place) - _series(6, place)
    return "0123456789ABCDEF"[int(16 * (total % 1.0))]


def _series(offset: int, place: int) -> float:
    total = 0.0
    for k in range(place + 1):
        total += pow(16, place - k, 8 * k + offset) / (8 * k + offset)
    for k in range(place + 1, place + 12):
        total += 16.0 ** (place - k) / (8 * k + offset)
    return total % 1.0
