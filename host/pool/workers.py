"""The workers of a pool: between none and a maximum, each in one thread's hands at a time.

    take   an idle one that lives -> or a new one, up to the maximum -> or wait until one is given back
    give   back to the idle ones, or let go: it has ended, has served enough, has grown, or the pool is closed

The one that was used last is used next: the others can be let go when they were idle for long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fxcell.host import idling, registry, watching
from fxcell.host.pool.breaker import Breaker
from fxcell.host.pool.farewell import Farewell
from fxcell.host.sessions import Session
from fxcell.policies.crash import Reason, WorkerCrash
from fxcell.policies.errors import PoolBusy, PoolClosed
from fxcell.policies.policy import Policy
from fxcell.sandbox.kernel import processes

_MEMORY_LOOK_USES = 16
_HANG_LOOK_S = 1.0
CLOSED = "the pool is closed, or was made before this process forked; make a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How long a worker is kept.

    commands:     so many commands at most; 1 gives each command a worker of its own.
    growth_bytes: resident memory over that after its first command.
    idle_s:       seconds without a command, for those over the minimum.
    """

    commands: int
    growth_bytes: int
    idle_s: float


class Kept:
    """One worker of the pool."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.idle_since_s = 0.0
        self._uses = self._first_bytes = 0

    def hangs(self) -> bool:
        """True for one that was stopped by a signal while it was idle; looked for only after a second, for it takes time."""
        return time.monotonic() - self.idle_since_s > _HANG_LOOK_S and watching.is_stopped(self.session.pid)

    def has_grown(self, bound_bytes: int) -> bool:
        """True when its memory is over the bound; looked at after the first use, then now and then."""
        self._uses += 1
        if self._uses != 1 and self._uses % _MEMORY_LOOK_USES:
            return False
        now_bytes = sum(processes.resident_bytes(child) for child in processes.children_of(self.session.pid))
        self._first_bytes = self._first_bytes or now_bytes
        return now_bytes - self._first_bytes > bound_bytes


class Workers:
    """Safe from many threads. `one()` is all that a request needs."""

    def __init__(self, policy: Policy, minimum: int, maximum: int, keeping: Keeping) -> None:
        self.policy = policy
        self.minimum, self.maximum = minimum, maximum
        self.started = 0
        self._keeping = keeping
        self._breaker = Breaker()
        self._changed = threading.Condition()
        self._idle: list[Kept] = []
        self._busy: set[Kept] = set()
        self._waiting: deque[object] = deque()
        self._count = 0
        self._closed = False
        self._farewell = Farewell()
        idling.tend(self)

    def commands_left(self, session: Session) -> int:
        """How many commands this worker still serves before it is replaced, at least 1."""
        return self._keeping.commands - session.commands

    @property
    def count(self) -> int:
        """How many workers there are, those that are being started included."""
        return self._count

    @property
    def is_closed(self) -> bool:
        """True once close() was called."""
        return self._closed

    def warm(self, deadline: float) -> None:
        """Start the minimum ahead of need. Raises as take."""
        for worker in [self._take(deadline) for _ in range(self.minimum)]:
            self._give(worker)

    @contextmanager
    def one(self, deadline: float) -> Iterator[Session]:
        """A worker for one command; afterwards it is kept or let go.

        deadline: time.monotonic() seconds.
        Raises: PoolBusy - none was free before the deadline; PoolUnavailable - none can be started; PoolClosed;
                IsolationUnavailable, OutOfDescriptors.
        """
        worker = self._take(deadline)
        try:
            yield worker.session
        finally:
            self._give(worker)

    def close(self) -> None:
        """End every worker, whatever it is doing; who waits for one gets PoolClosed. Nothing is left afterwards."""
        with self._changed:
            self._closed = True
            self._count -= len(self._idle)
            left, self._idle = [*self._idle, *self._busy], []
            self._changed.notify_all()
        for worker in left:
            registry.stop(worker.session.process)
        self._farewell.close()

    def forget_after_fork(self) -> None:
        """In the child of a fork: the workers belong to the parent."""
        self._changed, self._closed = threading.Condition(), True
        self._idle, self._busy, self._count = [], set(), 0
        self._waiting.clear()
        self._farewell.forget_after_fork()

    def _take(self, deadline: float) -> Kept:
        gone: list[Kept] = []
        try:
            with self._changed:
                found = self._idle_or_room(deadline, gone)
        finally:
            for worker in gone:
                self._farewell.end(worker.session)
        if found is not None:
            return found
        try:
            worker = Kept(self._started(deadline))
        except BaseException:
            self._forget_one()
            raise
        with self._changed:
            self._busy.add(worker)
            closed = self._closed
        if closed:
            self._give(worker)
            raise PoolClosed("the pool was closed while a worker was started for the request")
        return worker

    def _idle_or_room(self, deadline: float, gone: list[Kept]) -> Kept | None:
        # In turn: a map takes its worker again the moment it gave it back, and would leave nothing to those who wait.
        turn = object()
        self._waiting.append(turn)
        try:
            while True:
                if self._closed:
                    raise PoolClosed(CLOSED)
                if self._waiting[0] is turn:
                    if (worker := self._living_idle(gone)) is not None:
                        return worker
                    if self._count < self.maximum:
                        self._count += 1
                        return None
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    why = f"none of the {self.maximum} workers was free before the deadline"
                    raise PoolBusy(f"{why}; allow more, or wait longer")
                self._changed.wait(left_s)
        finally:
            self._waiting.remove(turn)
            if self._waiting:
                self._changed.notify_all()

    def _living_idle(self, gone: list[Kept]) -> Kept | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.session.lives and not worker.hangs():
                self._busy.add(worker)
                return worker
            gone.append(worker)
            self._count -= 1
        return None

    def _started(self, deadline: float) -> Session:
        while True:
            self._breaker.wait(deadline)
            try:
                session = registry.session_of(registry.start(self.policy))
            except WorkerCrash as crash:
                if crash.reason is not Reason.START_FAILED:
                    raise
                self._breaker.failed(crash)
                continue
            self._breaker.worked()
            self.started += 1
            return session

    def _give(self, worker: Kept) -> None:
        keep = self._is_worth_keeping(worker)
        tired: list[Kept] = [] if keep else [worker]
        with self._changed:
            self._busy.discard(worker)
            if keep and not self._closed:
                worker.idle_since_s = time.monotonic()
                self._idle.append(worker)
            elif keep:
                tired.append(worker)
            self._count -= len(tired)
            self._changed.notify_all()
        for one in tired:
            self._farewell.end(one.session)

    def end_idle(self) -> None:
        """Let go of those over the minimum that were idle for too long."""
        tired: list[Kept] = []
        with self._changed:
            old_s = time.monotonic() - self._keeping.idle_s
            while self._count > self.minimum and self._idle and self._idle[0].idle_since_s < old_s:
                tired.append(self._idle.pop(0))
                self._count -= 1
        for one in tired:
            self._farewell.end(one.session)

    def _is_worth_keeping(self, worker: Kept) -> bool:
        session = worker.session
        # Whether it lives, the kernel is asked when it is taken again.
        if session.ended or session.commands >= self._keeping.commands:
            return False
        with suppress(OSError, ValueError):  # it ends at this very moment: the next who takes it will see
            return not worker.has_grown(self._keeping.growth_bytes)
        return True

    def _forget_one(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
