"""What must not be cut off in the middle: starts and ends of workers, which the end of the program waits for.

At the end of a program its daemon threads stand still wherever they are (threading, "Daemon threads are abruptly stopped"):
with a cgroup made for a worker that is not listed yet, or a worker off the list and its group still there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from fxcell.policies.errors import WorkerStopped

PATIENCE_S = 10.0
"""How long an end waits: a start of a template takes 0.3 s, on a busy machine some seconds."""
_LOOK_S = 0.005

_steps: dict[object, int] = {}
"""Each step under way, and its thread. No lock: what a signal handler interrupts could be holding it."""
_program_ends = False


@contextlib.contextmanager
def start() -> Iterator[None]:
    """As step, for the start of a worker. Raises: WorkerStopped - the program is ending, and nobody would end the worker."""
    with step():
        if _program_ends:
            raise WorkerStopped("the program is ending: no worker is started any more")
        yield


@contextlib.contextmanager
def step() -> Iterator[None]:
    """Have finish() wait for the end of this block."""
    token = object()
    _steps[token] = threading.get_ident()
    try:
        yield
    finally:
        _steps.pop(token, None)


def finish() -> bool:
    """Wait until the steps that other threads are in the middle of have ended; False when some still have not by PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    pending = list(_steps)
    while any(_is_under_way(token) for token in pending):
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_S)
    return True


def end_program() -> None:
    """From now on no worker is started."""
    global _program_ends
    _program_ends = True


def _is_under_way(token: object) -> bool:
    thread = _steps.get(token, 0)
    return thread != threading.get_ident() and any(living.ident == thread for living in threading.enumerate())


def forget_after_fork() -> None:
    """In the child of a fork: the threads and their steps are the parent's."""
    global _program_ends
    _steps.clear()
    _program_ends = False
