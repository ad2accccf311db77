"""What may stand between a session and its broker: something that writes down what passes, or answers in its place.

session.command --value--> tape.command ──▶ worker
worker --effect--> session ──▶ tape.effect ──▶ broker.perform ──▶ broker.performer
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from fxcell.host import registry
from fxcell.policies.effects import Effect, WorkerProcess

if TYPE_CHECKING:
    from fxcell.host.effects.context import Context
    from fxcell.host.sessions import Session


class Tape(Protocol):
    """Sees every command of one session and every effect that its worker asks for."""

    def command(self, session: Session, value: Any, go: Callable[[], Any]) -> Any:
        """Answer go(), which runs the command `value`, or raise as it does."""

    def effect(self, session: Session, effect: Effect, context: Context) -> Any:
        """Answer session.broker.perform(effect, context), or what stands for it; raise as it does."""


@contextlib.contextmanager
def attached(process: WorkerProcess, tape: Tape) -> Iterator[Session]:
    """Put a tape on a worker for the length of a block; one at a time.

    Raises: WorkerStopped. ValueError - the worker has a tape already.
    """
    session = registry.session_of(process)
    if session.tape is not None:
        raise ValueError(f"worker {process.id} is being recorded or replayed already")
    session.tape = tape
    try:
        yield session
    finally:
        session.tape = None
