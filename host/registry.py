"""Which sessions this process has: the way from a WorkerProcess handle, which is plain data, to its session."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from fxcell.host import idling, launcher, templates, unfinished
from fxcell.host.effects.context import Caller
from fxcell.host.sessions import Session
from fxcell.policies.calls import Definition
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import WorkerStopped
from fxcell.policies.policy import Policy

_sessions: dict[str, Session] = {}
_ends: dict[str, str] = {}
_ENDS_KEPT = 1000
_table = threading.Lock()


def start(policy: Policy, caller: Caller | None = None) -> WorkerProcess:
    """Start a worker, for a plugin or for none.

    Raises: IsolationUnavailable; WorkerCrash(start_failed); WorkerStopped - the program is ending.
    """
    with unfinished.start():
        session = Session(policy, caller)
        with _table:
            _sessions[session.process.id] = session
    idling.watch(_living)
    return session.process


def prepare() -> None:
    """Start the threads that starts of workers need, for starts after the main thread has ended."""
    launcher.ensure_thread()
    idling.watch(_living)


def _living() -> list[Session]:
    with _table:
        return [session for session in _sessions.values() if not session.ended]


def session_of(process: WorkerProcess) -> Session:
    """The session behind a handle. Raises WorkerStopped for one that this process does not have."""
    session = _sessions.get(process.id)
    if session is None and process.id in _ends:
        raise WorkerStopped(
            f"worker {process.id} is gone: {_ends[process.id]}. Start a new one: FX.StartWorkerProcess() | run"
        )
    if session is None:
        raise WorkerStopped(
            f"this process has no worker {process.id}: it was stopped, or belongs to another process. "
            "Start a new one: FX.StartWorkerProcess() | run"
        )
    return session


def command(process: WorkerProcess, value: Any, deadline_s: float | None) -> Any:
    """Run a value in a worker; a worker that crashes on it is not listed any more. Raises as Session.command."""
    session = session_of(process)
    try:
        return session.command(value, deadline_s)
    finally:
        if session.ended:
            _remember_end(session)


def batch(
    process: WorkerProcess, definition: Definition, rows: Sequence[Sequence[Any]], deadline_s: float | None
) -> tuple[list[Any], list[Exception]]:
    """Many calls of one function in a worker. As Session.batch."""
    session = session_of(process)
    try:
        return session.batch(definition, rows, deadline_s)
    finally:
        if session.ended:
            _remember_end(session)


def stop(process: WorkerProcess) -> None:
    """End a worker; one that has ended already, or never was, is no error."""
    with unfinished.step():
        with _table:
            session = _sessions.pop(process.id, None)
        if session is not None:
            session.stop()


def list_living() -> list[dict[str, Any]]:
    """One dict per living worker, in the order they were started; a worker that died while it was idle is not in it."""
    return [
        {
            "process": session.process,
            "pid": session.pid,
            "policy": session.policy.name,
            "state": session.state,
            "commands": session.commands,
            "started_unix_s": session.started_unix_s,
        }
        for session in _living()
        if session.lives
    ]


def _remember_end(session: Session) -> None:
    """Keep why it is gone, for a later command to it; not the session, which holds what its worker wrote."""
    with _table:
        _sessions.pop(session.process.id, None)
        _ends[session.process.id] = session.ended or ""
        while len(_ends) > _ENDS_KEPT:
            del _ends[next(iter(_ends))]


def shutdown() -> None:
    """Stop every worker and end every template, also those that other threads are starting or stopping just now."""
    unfinished.finish()  # what is being started is listed then
    with _table:
        sessions = list(_sessions.values())
        _sessions.clear()
    for session in sessions:
        session.stop()
    unfinished.finish()  # what was off the list already
    templates.close_all()
    async_handlers = sys.modules.get("fxcell.host.effects.async_handlers")
    if async_handlers is not None:
        async_handlers.close()


def _forget_after_fork() -> None:
    global _table
    _table = threading.Lock()
    _sessions.clear()
    _ends.clear()
    templates.forget_after_fork()
    unfinished.forget_after_fork()


def _at_exit() -> None:
    unfinished.end_program()
    shutdown()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_forget_after_fork)
