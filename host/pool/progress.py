"""A bar on standard error for a long map: how many inputs are done, how many of them failed, how long the rest will take.

Shown on terminals only, so that logs and pipes get nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

from fxcell.policies.errors import OutcomeError

_LOOK_S = 0.1


def total_of(inputs: Sequence[Iterable[Any]]) -> int | None:
    """How many calls there will be, where every input but endless ones can tell."""
    lengths = [len(one) for one in inputs if isinstance(one, Sized)]
    return min(lengths) if len(lengths) == len(inputs) else None


def shown(outcomes: Iterator[Any], total: int | None, label: str) -> Iterator[Any]:
    """The same outcomes; meanwhile a bar, where standard error is a terminal.

    total: how many there will be, or None when nobody knows. label: what stands before the bar.
    """
    if sys.stderr is None or not sys.stderr.isatty():  # None in a process without one, as under pythonw
        return outcomes
    return _with_bar(outcomes, total, label)


def _with_bar(outcomes: Iterator[Any], total: int | None, label: str) -> Iterator[Any]:
    done = failed = 0
    next_look_s = 0.0
    bar = _Bar(total, label)
    try:
        for outcome in outcomes:
            yield outcome
            done += 1
            failed += isinstance(outcome, OutcomeError)
            now_s = time.monotonic()
            if now_s >= next_look_s:  # a bar that is told of each of a million outcomes would cost more than they do
                next_look_s = now_s + _LOOK_S
                bar.show(done, failed)
    finally:
        outcomes.close()  # type: ignore[attr-defined]
        bar.end(done, failed)


class _Bar:
    """Drawn by hand, from one thread; a terminal that goes away takes the bar along, and no outcome."""

    def __init__(self, total: int | None, label: str) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        class Terminal(Console):
            def on_broken_pipe(self) -> None:  # rich's own ends the process
                raise BrokenPipeError

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=Terminal(stderr=True), auto_refresh=False,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._task = self._progress.add_task(escape(label), total=total, failed="")
        self._works = True
        self._try(self._progress.start)

    def show(self, done: int, failed: int) -> None:
        """So many are done, so many of them failed."""
        text = f"{failed} failed" if failed else ""
        self._try(lambda: self._progress.update(self._task, completed=done, failed=text, refresh=True))

    def end(self, done: int, failed: int) -> None:
        """Leave the last state on the terminal."""
        self.show(done, failed)
        self._try(self._progress.stop)

    def _try(self, act: Callable[[], None]) -> None:
        if self._works:
            try:
                act()
            except (OSError, ValueError):
                self._works = False
