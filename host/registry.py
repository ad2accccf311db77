"""Which sessions this process has: the way from a WorkerProcess handle, which is plain data, to its session."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

from fxcell.host import templates
from fxcell.host.sessions import Session
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import WorkerStopped
from fxcell.policies.policy import Policy

_sessions: dict[str, Session] = {}
_table = threading.Lock()


def start(policy: Policy) -> WorkerProcess:
    """Start a worker. Raises IsolationUnavailable, WorkerCrash(start_failed)."""
    session = Session(policy)
    with _table:
        _sessions[session.process.id] = session
    return session.process


def session_of(process: WorkerProcess) -> Session:
    """The session behind a handle. Raises WorkerStopped for one that this process does not have."""
    session = _sessions.get(process.id)
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
            _forget_old_ends()


def stop(process: WorkerProcess) -> None:
    """End a worker; one that has ended already is no error, one that never was is."""
    with _table:
        session = _sessions.pop(process.id, None)
    if session is not None:
        session.stop()


def list_living() -> list[dict[str, Any]]:
    """One dict per living worker, in the order they were started."""
    with _table:
        living = [session for session in _sessions.values() if not session.ended]
    return [
        {
            "process": session.process,
            "pid": session.pid,
            "policy": session.policy.name,
            "state": session.state,
            "commands": session.commands,
            "started_unix_s": session.started_unix_s,
        }
        for session in living
    ]


_ENDED_KEPT = 1000


def _forget_old_ends() -> None:
    """Keep the last ends, so that a later command to such a worker hears why it is gone."""
    with _table:
        gone = [key for key, other in _sessions.items() if other.ended]
        for key in gone[:-_ENDED_KEPT]:
            del _sessions[key]


def shutdown() -> None:
    """Stop every worker and end every template."""
    with _table:
        sessions = list(_sessions.values())
        _sessions.clear()
    for session in sessions:
        session.stop()
    templates.close_all()


def _forget_after_fork() -> None:
    global _table
    _table = threading.Lock()
    _sessions.clear()
    templates.forget_after_fork()


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget_after_fork)
