"""A bar on standard error for a long map: how many inputs are done, how many of them failed, how long the rest will take.

Shown on terminals only, so that logs and pipes get nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
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
    if not sys.stderr.isatty():
        return outcomes
    return _with_bar(outcomes, total, label)


def _with_bar(outcomes: Iterator[Any], total: int | None, label: str) -> Iterator[Any]:
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

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    done = failed = 0
    next_look_s = 0.0
    with bar:
        task = bar.add_task(escape(label), total=total, failed="")
        try:
            for outcome in outcomes:
                yield outcome
                done += 1
                failed += isinstance(outcome, OutcomeError)
                now_s = time.monotonic()
                if now_s >= next_look_s:  # a bar that is told of each of a million outcomes would cost more than they do
                    next_look_s = now_s + _LOOK_S
                    bar.update(task, completed=done, failed=f"{failed} failed" if failed else "")
        finally:
            bar.update(task, completed=done, failed=f"{failed} failed" if failed else "")
            outcomes.close()  # type: ignore[attr-defined]
