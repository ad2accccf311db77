"""Many calls of one function: a window that moves along the inputs, cut into batches as workers get free.

    inputs -> waiting calls -> a runner takes as many as a few milliseconds' work -> results, in order or as they come

Runners are the pool's threads, at most one for each worker. How many calls make a batch follows from how long the last ones
took; nothing waits for a batch to become full, so slow inputs and slow calls travel one by one. Inputs are taken as room
comes, so they may be endless. Whatever ends the iteration (an outcome that is raised, inputs that raise, a consumer that
stops) drops what was not begun; what runs is left to end, and its outcome is dropped.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fxcell.policies.errors import OutcomeError, PoolClosed

BATCH_TARGET_S = 0.005
"""What a batch should take: long against the tenth of a millisecond that sending one costs, short for who waits."""
BATCH_CALLS_MAX = 4096
_GROWTH = 8
_TURN_S = 0.05
"""A runner makes way for other commands of the pool after so many seconds."""
_BLOCK = 1024

Row = tuple[Any, ...]
Send = Callable[[Sequence[Row]], "Sent"]


@dataclass(slots=True)
class Sent:
    """What became of the first calls of a batch; of the last of them it may be an error. The others were not begun.

    seconds: how long the worker had them.
    """

    results: list[Any]
    error: Exception | None
    seconds: float

    def __len__(self) -> int:
        return len(self.results) + (self.error is not None)


class Mapping:
    """One map over a pool. Runners call `run_some`, the consumer iterates over `outcomes`.

    send:    runs a batch. launch: has `run_some` called in a thread; raises when the pool takes no more. None: the consumer
             runs the batches itself, in a thread of the pool, whose other threads may all be waiting for this one.
    runners: at most so many at once. window: at most so many calls on their way.
    """

    def __init__(
        self, send: Send, launch: Callable[[Callable[[], None]], None] | None, *, runners: int, window: int
    ) -> None:
        self._send, self._launch = send, launch
        self._runners_max, self._window_max = runners, window
        self._lock = threading.RLock()  # taken by itself: see workers.py
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[tuple[int, Sequence[Row]]] = deque()
        self._waiting_calls = 0
        self._done: dict[int, Sent] = {}
        self._runners = 0
        self._batch_calls = 1
        self._broken: BaseException | None = None
        self._pid = os.getpid()

    # --- the consumer

    def outcomes(self, inputs: Sequence[Iterable[Any]], *, ordered: bool, return_errors: bool) -> Iterator[Any]:
        """The result of each call, or its OutcomeError: raised, or with return_errors in its place."""
        source = zip(*inputs, strict=False)
        # Taking from these never waits for anybody, so a block at a time holds nothing up.
        block = _BLOCK if all(type(one) in (list, tuple, range) for one in inputs) else 1
        on_way, given, more = 0, 0, True
        try:
            while True:
                while more and on_way < (room := self._window()):
                    rows = list(itertools.islice(source, min(block, room - on_way)))
                    more = bool(rows)
                    if more:
                        self._add(given + on_way, rows)
                    on_way += len(rows)
                    if block == 1 and self._is_done(given if ordered else None):
                        break  # the next input may be long in coming
                if not on_way:
                    return
                sent = self._next(given if ordered else None)
                results, error = sent.results, sent.error
                given += len(sent)
                on_way -= len(sent)
                del sent
                yield from results
                if error is not None:
                    if not return_errors or not isinstance(error, OutcomeError):
                        try:
                            raise error
                        finally:
                            del error  # its traceback holds this frame
                    yield error
        finally:
            if self._pid == os.getpid():
                self._stop()

    def _window(self) -> int:
        return min(self._window_max, 2 * self._runners_max * self._batch_calls + 1)

    def _check_process(self) -> None:
        # The runners are threads of the parent, and one of them may have held the lock at the fork.
        if self._pid != os.getpid():
            raise PoolClosed("the map was begun before this process forked; its results come to the parent")

    def _add(self, place: int, rows: Sequence[Row]) -> None:
        self._check_process()
        with self._lock:
            self._waiting.append((place, rows))
            self._waiting_calls += len(rows)
            if self._launch is None:
                return
            missing = min(self._runners_max - self._runners, len(rows))
            self._runners += missing
        for launched in range(missing):
            try:
                self._launch(self.run_some)
            except BaseException:
                with self._lock:
                    self._runners -= missing - launched
                raise

    def _is_done(self, place: int | None) -> bool:
        return bool(self._done) if place is None else place in self._done

    def _next(self, place: int | None) -> Sent:
        """What became of the batch that begins at this place; without one, of the first that is done."""
        self._check_process()
        if self._launch is None:
            while not self._is_done(place) and (batch := self._take()) is not None:
                self._run(*batch)
        with self._lock:
            while self._broken is None and not self._is_done(place):
                self._changed.wait()
            if self._broken is not None:
                raise self._broken
            return self._done.pop(next(iter(self._done)) if place is None else place)

    def _stop(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._waiting_calls = 0
            self._done.clear()

    # --- the runners

    def run_some(self) -> None:
        """Take batches and run them, until nothing waits or it is others' turn."""
        end_s = time.monotonic() + _TURN_S
        try:
            while (batch := self._take()) is not None:
                self._run(*batch)
                if self._launch is not None and time.monotonic() >= end_s:
                    self._launch(self.run_some)
                    return
        except BaseException as error:  # noqa: BLE001 - it is the consumer's
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Nothing more comes: the consumer gets this."""
        with self._lock:
            self._broken = error
            self._changed.notify_all()

    def _take(self) -> tuple[int, Sequence[Row]] | None:
        with self._lock:
            if not self._waiting:
                self._runners -= 1
                return None
            # Where fewer wait than make full batches, no more than a fair share of them.
            count = min(self._batch_calls, -(-self._waiting_calls // self._runners_max))
            start, rows = self._waiting.popleft()
            while len(rows) < count and self._waiting and self._waiting[0][0] == start + len(rows):
                rows = [*rows, *self._waiting.popleft()[1]]
            if len(rows) > count:
                self._waiting.appendleft((start + count, rows[count:]))
                rows = rows[:count]
            self._waiting_calls -= len(rows)
            return start, rows

    def _run(self, start: int, rows: Sequence[Row]) -> None:
        try:
            sent = self._send(rows)
        except Exception as error:  # noqa: BLE001 - it is the first call's outcome; the others are tried for themselves
            sent = Sent([], error, BATCH_TARGET_S)
        done = len(sent)
        if sent.error is not None and not isinstance(sent.error, OutcomeError):
            sent.error.add_note(f"this was input {start + done - 1} of the map, counted from 0")
        with self._lock:
            self._done[start] = sent
            if done < len(rows):
                self._waiting.appendleft((start + done, rows[done:]))
                self._waiting_calls += len(rows) - done
            self._learn(len(rows), done, sent.seconds)
            self._changed.notify()

    def _learn(self, sent: int, done: int, seconds: float) -> None:
        """Find how many calls make a batch of BATCH_TARGET_S."""
        fitting = int(BATCH_TARGET_S / max(seconds / done, 1e-9))
        if done < sent:  # such calls end their batch early, and larger ones would be cut as well
            self._batch_calls = min(fitting, done)
        elif seconds > 2 * BATCH_TARGET_S:
            self._batch_calls = min(fitting, self._batch_calls // 2)
        elif 2 * sent >= self._batch_calls:  # of a smaller one, most of the time was for sending it
            self._batch_calls = min(max(fitting, self._batch_calls // 2), _GROWTH * self._batch_calls, BATCH_CALLS_MAX)
        self._batch_calls = max(1, self._batch_calls)
