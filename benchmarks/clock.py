"""How things are timed, in the process that does them."""

from __future__ import annotations

import time
from collections.abc import Callable

WARM_UP = 20
_MOST = 1_000_000


class Absent(Exception):
    """Raised by a side for which something is not here: the row is skipped, with this text."""


class NoFigure(Exception):
    """Raised by a side that is here and cannot give the figure; the text, shown in the row, says why."""


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def latencies(action: Callable[[], object], calls: int, slice_s: float) -> list[float]:
    """Seconds of each of up to so many calls, but no longer than slice_s in all; the first few are not counted."""
    end = time.perf_counter() + slice_s
    for _ in range(WARM_UP):
        action()
        if time.perf_counter() > end:
            break
    end = time.perf_counter() + slice_s
    samples: list[float] = []
    while len(samples) < calls and (not samples or time.perf_counter() < end):
        samples.append(timed(action))
    return samples


class Rate:
    """Things per second of batch(count), with a count that makes one batch last about slice_s."""

    def __init__(self, batch: Callable[[int], object], slice_s: float, first: int = 1) -> None:
        self._batch, self._slice_s, self._count = batch, slice_s, first
        self._settled = False

    def take(self) -> float:
        seconds = timed(lambda: self._batch(self._count))
        while not self._settled and seconds < self._slice_s / 2 and self._count < _MOST:
            self._count = min(self._count * (4 if seconds < self._slice_s / 8 else 2), _MOST)
            seconds = timed(lambda: self._batch(self._count))
        self._settled = True
        return self._count / seconds
