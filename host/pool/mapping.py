"""Many calls at once: a window of requests in flight that moves along the inputs.

    inputs -> at most `window` submitted -> outcomes, in the order of the inputs or as they come

Inputs are taken as room comes, so they may be endless. Whatever ends the iteration (an outcome that is raised, inputs that
raise, a consumer that stops) cancels what was not begun; what runs is left to end, and its outcome is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from fxcell.policies.errors import OutcomeError


def outcomes(
    submit: Callable[[Any], Future[Any]], values: Iterable[Any], *, window: int, ordered: bool, return_errors: bool
) -> Iterator[Any]:
    """The result of each value, or its OutcomeError: raised, or with return_errors in its place."""
    waiting: deque[Future[Any]] = deque()
    source = iter(values)
    more = True
    try:
        while True:
            while more and len(waiting) < window:
                try:
                    value = next(source)
                except StopIteration:
                    more = False
                    break
                waiting.append(submit(value))
            if not waiting:
                return
            yield _outcome(_next(waiting, ordered), return_errors)
    finally:
        for future in waiting:
            future.cancel()


def _next(waiting: deque[Future[Any]], ordered: bool) -> Future[Any]:
    if ordered:
        return waiting.popleft()
    done = wait(waiting, return_when=FIRST_COMPLETED).done
    future = next(future for future in waiting if future in done)
    waiting.remove(future)
    return future


def _outcome(future: Future[Any], return_errors: bool) -> Any:
    try:
        return future.result()
    except OutcomeError as error:
        if return_errors:
            return error
        raise
    except BaseException:
        future.cancel()  # the consumer was interrupted while it waited
        raise
