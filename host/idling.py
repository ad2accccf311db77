"""Workers between commands: no limit of a command holds there, so one that works on is ended.

A plugin can leave a thread behind when its command is over. One thread of the host looks at idle workers about once a second,
and has pools let go of those that were idle for too long.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from fxcell.host.log_text import traceback_text

_LOOK_S = 1.0
_SESSIONS_PER_S = 200
"""A look at one worker takes about 0.1 ms: at most two per cent of a CPU go into looking."""
IDLE_CPU_S = 1.0
"""CPU seconds that a worker may use in one pause between commands: enough for a library to clean up."""

_log = logging.getLogger("fxcell.idle")


class Keeper(Protocol):
    """Keeps idle workers."""

    def end_idle(self) -> None:
        """End those that it keeps no longer."""


_keepers: weakref.WeakSet[Any] = weakref.WeakSet()
_starting = threading.Lock()
_thread: threading.Thread | None = None


def watch(living: Callable[[], list[Any]]) -> None:
    """Have idle workers looked at from now on. living: answers the sessions there are."""
    global _thread
    if _thread is None:
        with _starting:
            if _thread is None:
                _thread = threading.Thread(target=_serve, args=(living,), name="fxcell-idle", daemon=True)
                _thread.start()


def tend(keeper: Keeper) -> None:
    """Have a keeper of workers end idle ones about once a second, for as long as anybody holds it."""
    with _starting:
        _keepers.add(keeper)


_Pauses = dict[str, tuple[int, float]]
"""Worker -> how many commands it had so far, its CPU seconds when this pause was first seen."""


def _serve(living: Callable[[], list[Any]]) -> None:
    pauses: _Pauses = {}
    while True:
        try:
            pauses = _look(living(), pauses)  # nothing of a session is kept in here
        except Exception as error:  # noqa: BLE001 - the thread is everybody's
            _log.error("idle workers could not be looked at\n%s", traceback_text(error))
        _tend_all()
        time.sleep(max(_LOOK_S, len(pauses) / _SESSIONS_PER_S))


def _tend_all() -> None:
    with _starting:
        keepers = list(_keepers)
    for keeper in keepers:
        try:
            keeper.end_idle()
        except Exception as error:  # noqa: BLE001 - the thread is everybody's
            _log.error("idle workers could not be ended\n%s", traceback_text(error))


def _look(sessions: list[Any], before: _Pauses) -> _Pauses:
    pauses: _Pauses = {}
    for session in sessions:
        try:
            commands, used_s = session.commands, session.cpu_s()
        except OSError:  # this process may open no more files just now
            continue
        seen, base_s = before.get(session.process.id, (-1, 0.0))
        pauses[session.process.id] = (seen, base_s) if seen == commands else (commands, used_s)
        if session.busy:
            pauses[session.process.id] = -1, 0.0
        elif seen == commands and used_s - base_s > IDLE_CPU_S:
            session.end_idle(f"it used {used_s - base_s:.1f} s of CPU time while no command was running", commands)
    return pauses


def _forget_after_fork() -> None:
    global _thread, _starting
    _thread, _starting = None, threading.Lock()
    _keepers.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
