"""The workers of a pool: between none and a maximum, each in one thread's hands at a time.

    take   an idle one that lives -> or a new one, up to the maximum -> or wait until one is given back
    give   back to the idle ones, or let go: it has ended, has served enough, has grown, or the pool is closed

The one that was used last is used next: the others can be let go when they were idle for long.

A place in the queue and a worker are lent to a Lease, which the frame that works with them holds and nothing else. So an
interrupt, which can come between any two steps of ours, loses none: when the frame is gone, what it held is free again.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fxcell.host import idling, registry, watching
from fxcell.host.pool.breaker import Breaker
from fxcell.host.pool.farewell import Farewell
from fxcell.host.sessions import Session
from fxcell.policies.crash import Reason, WorkerCrash
from fxcell.policies.errors import OutOfDescriptors, PoolBusy, PoolClosed, PoolUnavailable
from fxcell.policies.policy import Policy
from fxcell.sandbox.kernel import processes

_MEMORY_LOOK_USES = 16
_HANG_LOOK_S = 1.0
_LEASE_LOOK_S = 1.0
"""How soon who waits finds what an interrupted thread held."""
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


class Lease:
    """Held by the frame that waits for a worker or has one, and by nothing else; tables know it by weak references."""

    __slots__ = ("__weakref__",)


_LOOK_AGAIN = object()


class Workers:
    """Safe from many threads. `one()` is all that a request needs."""

    def __init__(self, policy: Policy, minimum: int, maximum: int, keeping: Keeping) -> None:
        self.policy = policy
        self.minimum, self.maximum = minimum, maximum
        self.started = 0
        self._keeping = keeping
        self._breaker = Breaker()
        # Taken by itself, never as the condition: that one's __enter__ is Python, in which an interrupt leaves it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._idle: list[Kept] = []
        self._lent: dict[weakref.ref[Lease], Kept | None] = {}  # None: it is being started
        self._waiting: deque[weakref.ref[Lease]] = deque()
        self._closed = False
        self._farewell = Farewell()
        idling.tend(self)

    def commands_left(self, session: Session) -> int:
        """How many commands this worker still serves before it is replaced, at least 1."""
        return self._keeping.commands - session.commands

    @property
    def count(self) -> int:
        """How many workers there are, those that are being started included."""
        return len(self._idle) + len(self._lent)

    @property
    def is_closed(self) -> bool:
        """True once close() was called."""
        return self._closed

    def warm(self, deadline: float) -> None:
        """Start the minimum ahead of need. Before: there are none. Raises as one; those that were started are lent then."""
        leases = [Lease() for _ in range(self.minimum)]
        for lease in leases:
            self._lent[weakref.ref(lease)] = None
        for lease, worker in [(lease, self._new(lease, deadline)) for lease in leases]:
            self._give(lease, worker)

    @contextmanager
    def one(self, deadline: float) -> Iterator[Session]:
        """A worker for one command; afterwards it is kept or let go.

        deadline: time.monotonic() seconds.
        Raises: PoolBusy - none was free before the deadline; PoolUnavailable, OutOfDescriptors - none lives, and none can be
                started; PoolClosed; IsolationUnavailable.
        """
        lease = Lease()
        worker = self._take(lease, deadline)
        try:
            yield worker.session
        finally:
            self._give(lease, worker)

    def close(self) -> None:
        """End every worker, whatever it is doing; who waits for one gets PoolClosed. Nothing is left afterwards."""
        with self._lock:
            self._closed = True
            left, self._idle = [*self._idle, *filter(None, self._lent.values())], []
            self._changed.notify_all()
        for worker in left:
            registry.stop(worker.session.process)
        self._farewell.close()

    def forget_after_fork(self) -> None:
        """In the child of a fork: the workers belong to the parent."""
        self._lock, self._closed = threading.RLock(), True
        self._changed = threading.Condition(self._lock)
        self._idle, self._lent = [], {}
        self._waiting.clear()
        self._farewell.forget_after_fork()

    def _take(self, lease: Lease, deadline: float) -> Kept:
        refused: OutOfDescriptors | PoolUnavailable | None = None
        while True:
            gone: list[Kept] = []
            try:
                with self._lock:
                    found = self._idle_or_room(lease, deadline, gone, refused)
            finally:
                for worker in gone:
                    self._farewell.end(worker.session)
            if isinstance(found, Kept):
                return found
            if found is _LOOK_AGAIN:
                continue
            try:
                return self._new(lease, deadline)
            except (OutOfDescriptors, PoolUnavailable) as error:
                refused = error  # one of those that live will be free

    def _new(self, lease: Lease, deadline: float) -> Kept:
        try:
            worker = Kept(self._started(deadline))
        except BaseException:
            with self._lock:
                self._lent.pop(weakref.ref(lease), None)
                self._changed.notify_all()
            raise
        with self._lock:
            self._lent[weakref.ref(lease)] = worker
            closed = self._closed
        if closed:
            self._give(lease, worker)
            raise PoolClosed("the pool was closed while a worker was started for the request")
        return worker

    def _idle_or_room(self, lease: Lease, deadline: float, gone: list[Kept], refused: Exception | None) -> object:
        """An idle worker; None where there is room for a new one; or _LOOK_AGAIN, when those in `gone` were ended.

        refused: why a new one could not be started just now; then it is raised where there is none to wait for.
        """
        # In turn: a map takes its worker again the moment it gave it back, and would leave nothing to those who wait.
        turn = weakref.ref(lease)
        self._waiting.append(turn)
        try:
            while True:
                if self._closed:
                    raise PoolClosed(CLOSED)
                while self._waiting[0]() is None:  # an interrupted thread's
                    self._waiting.popleft()
                if self._waiting[0] is turn:
                    if (worker := self._living_idle(turn, gone)) is not None:
                        return worker
                    if self._reclaimed(gone):
                        return _LOOK_AGAIN
                    if refused is not None and not self.count:
                        raise refused
                    if refused is None and self.count < self.maximum:
                        self._lent[turn] = None
                        return None
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    why = f"none of the {self.maximum} workers was free before the deadline"
                    raise PoolBusy(f"{why}; allow more, or wait longer")
                self._changed.wait(min(left_s, _LEASE_LOOK_S))
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)
            if self._waiting:
                self._changed.notify_all()

    def _living_idle(self, turn: weakref.ref[Lease], gone: list[Kept]) -> Kept | None:
        while self._idle:
            worker = self._idle[-1]
            lives = worker.session.lives and not worker.hangs()
            if lives:
                self._lent[turn] = worker
            else:
                gone.append(worker)
            self._idle.pop()
            if lives:
                return worker
        return None

    def _reclaimed(self, gone: list[Kept]) -> bool:
        """Take back what was lent to interrupted threads; True when there was anything. Its workers are added to `gone`."""
        dead = [turn for turn in self._lent if turn() is None]
        for turn in dead:
            worker = self._lent.pop(turn)
            if worker is not None and worker not in self._idle:
                gone.append(worker)
        return bool(dead)

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

    def _give(self, lease: Lease, worker: Kept) -> None:
        keep, tired = False, [worker]
        try:
            keep = self._is_worth_keeping(worker)
        finally:
            with self._lock:
                if keep and not self._closed:
                    worker.idle_since_s = time.monotonic()
                    self._idle.append(worker)
                    tired = []
                self._lent.pop(weakref.ref(lease), None)
                self._changed.notify_all()
            for one in tired:
                self._farewell.end(one.session)

    def end_idle(self) -> None:
        """Let go of those over the minimum that were idle for too long."""
        tired: list[Kept] = []
        with self._lock:
            old_s = time.monotonic() - self._keeping.idle_s
            while self.count > self.minimum and self._idle and self._idle[0].idle_since_s < old_s:
                tired.append(self._idle.pop(0))
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
