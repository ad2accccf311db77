"""Starts that fail: tried again after growing pauses, and for a while not at all when they fail one after the other.

failed x 1..4   the next try waits 0.05, 0.1, 0.2, 0.4 s
failed x 5      open: every request is refused at once for OPEN_S; then one try decides
"""

from __future__ import annotations

import threading
import time

from fxcell.policies.crash import WorkerCrash
from fxcell.policies.errors import PoolUnavailable

FIRST_PAUSE_S = 0.05
OPEN_AFTER = 5
OPEN_S = 10.0


class Breaker:
    """Counts starts that failed in a row. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before_s = 0.0
        self._last: WorkerCrash | None = None

    def wait(self, deadline: float) -> None:
        """Return when the next start may be tried.

        deadline: time.monotonic() seconds. Raises: PoolUnavailable - open, or not before the deadline.
        """
        with self._lock:
            now = time.monotonic()
            pause_s = self._not_before_s - now
            last, is_open = self._last, self._failures >= OPEN_AFTER
            if pause_s <= 0 and is_open:
                # One try decides; until it has, the others are refused.
                self._not_before_s = now + OPEN_S
        if pause_s <= 0:
            return
        if is_open or now + pause_s > deadline:
            raise PoolUnavailable(
                f"{self._failures} starts of a worker failed one after the other; the next is tried in {pause_s:.2g} s. "
                f"The last: {last}"
            ) from last
        threading.Event().wait(pause_s)

    def failed(self, crash: WorkerCrash) -> None:
        """A start failed."""
        with self._lock:
            self._failures += 1
            pause_s = OPEN_S if self._failures >= OPEN_AFTER else FIRST_PAUSE_S * 2 ** (self._failures - 1)
            self._not_before_s = time.monotonic() + pause_s
            self._last = WorkerCrash(crash.reason, crash.detail, crash.evidence)

    def worked(self) -> None:
        """A start worked: all is forgotten."""
        with self._lock:
            self._failures, self._not_before_s, self._last = 0, 0.0, None
