"""`Pool`: commands over many workers of one policy. A crash is the outcome of its own command and of no other."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Literal, Self

from fxcell.host import cancelling
from fxcell.host.background import DaemonExecutor
from fxcell.host.pool import progress as bar
from fxcell.host.pool.arguments import check_count, check_seconds
from fxcell.host.pool.mapping import Mapping
from fxcell.host.pool.quarantine import Quarantine
from fxcell.host.pool.sending import Sender
from fxcell.host.pool.workers import CLOSED, Keeping, Workers
from fxcell.policies.calls import as_call
from fxcell.policies.errors import EffectError, OutcomeError, PoolBusy, PoolClosed
from fxcell.policies.limits import MiB
from fxcell.policies.loader import load_policy
from fxcell.policies.policy import Policy

MAX_WORKERS = 4096
_FOR_EVER = 2**62
_ROOM_LOOK_S = 0.005


class Pool:
    """Runs commands in up to `workers` workers; started when needed, replaced when they end, safe from many threads.

        with Pool(4) as pool:
            results = pool.map(resize_image, images, on_error='return')

    Commands follow each other in one worker's memory: what code leaves behind there, the next command in it can meet. Where
    inputs or code are of people who must not meet, give each their own pool, or every command its own worker (fresh=True).
    The end of `with` waits for what was submitted; an exception in it, and close(), end every worker at once, and so does
    the garbage collector when nobody holds the pool any more. Done-callbacks and handlers of effects run in the pool's own
    threads: one that waits there for a future of the pool can wait for itself. A signal handler runs in the middle of the
    main thread's own work with the pool: have it start a thread that calls close().

    A command is packed when a worker is free for it, not when it is submitted: an array or list that is changed until then
    travels as it is then. Arrays come back read-only.
    """

    def __init__(
        self, workers: int | None = None, *, policy: Policy | str | None = None, min_workers: int = 0,
        deadline_s: float | None = None, fresh: bool = False, recycle_after: int = 100_000, recycle_growth_bytes: int = 64 * MiB,
        idle_s: float = 60.0, queue: int = 10_000, wait_s: float = 3600.0, quarantine_after: int = 3,
    ) -> None:  # fmt: skip
        """Make a pool. Workers are started with the first commands, or min_workers of them now.

        workers:              at most so many at once, 1 to 4096; None is the number of processors that this process may use.
        policy:               a Policy, the name of a profile, or a file; None is `compute`.
        deadline_s:           seconds for each command that names none; None is the policy's wall_s, which bounds it always.
        fresh:                True gives each command a worker of its own, which ends with it.
        recycle_after:        commands that one worker serves before it is replaced.
        recycle_growth_bytes: resident memory that a worker may grow by after its first command.
        idle_s:               seconds after which idle workers over min_workers end, looked at about once a second.
        queue:                submitted commands that wait at most; submit() blocks while there are as many.
        wait_s:               seconds that a command waits for a free worker at most.
        quarantine_after:     crashes of one input after which it is refused; a deadline shorter than the pool's is none.

        Raises: EffectError - an argument out of range. PolicyError. With min_workers: IsolationUnavailable, PoolUnavailable.
        """
        workers = len(os.sched_getaffinity(0)) if workers is None else workers
        check_count("workers", workers, 1, MAX_WORKERS)
        check_count("min_workers", min_workers, 0, workers)
        for name, count in (("recycle_after", recycle_after), ("queue", queue), ("quarantine_after", quarantine_after)):
            check_count(name, count, 1, _FOR_EVER)
        check_count("recycle_growth_bytes", recycle_growth_bytes, 0, _FOR_EVER)
        for name, seconds in (("deadline_s", deadline_s), ("idle_s", idle_s), ("wait_s", wait_s)):
            if seconds is not None:
                check_seconds(name, seconds)
        self.policy = load_policy("compute" if policy is None else policy)
        keeping = Keeping(commands=1 if fresh else recycle_after, growth_bytes=recycle_growth_bytes, idle_s=idle_s)
        self.quarantine = Quarantine(quarantine_after)
        self._workers = Workers(self.policy, min_workers, workers, keeping)
        self._deadline_s, self._wait_s = deadline_s, wait_s
        usual_s = self.policy.limits.wall_s if deadline_s is None else min(deadline_s, self.policy.limits.wall_s)
        self._sender = Sender(self._workers, self.quarantine, wait_s, usual_s)
        self._threads = DaemonExecutor(workers, "fxcell-pool")
        self._room = threading.BoundedSemaphore(queue + workers)
        self._queue = queue
        self._pending: set[Future[Any]] = set()
        self._closing = threading.Lock()
        self._closed = False
        _pools.add(self)
        weakref.finalize(self, _abandon, self._workers, self._threads).atexit = False
        if min_workers:
            try:
                self._workers.warm(time.monotonic() + wait_s)
            except BaseException:
                self._workers.close()
                raise

    # --- one command

    def run(self, command: Any, deadline_s: float | None = None) -> Any:
        """Run a command in a worker, from this thread, and answer its result.

        Raises: as `run`, and: Quarantined - this input crashed too often; PoolBusy - no worker was free within wait_s;
        PoolUnavailable - no worker lives, and none can be started; PoolClosed.
        """
        if deadline_s is not None:
            check_seconds("deadline_s", deadline_s)
        return self._sender.one(command, self._deadline_s if deadline_s is None else deadline_s)

    def outcome(self, command: Any, deadline_s: float | None = None) -> Any:
        """As run, but an OutcomeError is answered, not raised."""
        try:
            return self.run(command, deadline_s)
        except OutcomeError as error:
            return error

    def submit(self, command: Any, deadline_s: float | None = None) -> Future[Any]:
        """Have a command run; the Future has its result or raises its outcome.

        Blocks while `queue` commands wait, for wait_s at most. Raises: PoolBusy, PoolClosed.
        """
        if not self._room.acquire(timeout=self._wait_s):
            raise self._full()
        return self._begin_with_room(self._run_with, None, command, deadline_s)

    def submit_many(self, function: Any, rows: Sequence[Sequence[Any]]) -> Future[list[Any]]:
        """Have a function called with each row of arguments, one row after another, in whatever workers are free.

        The Future has each result, or the OutcomeError in its place. Any other error (a value that cannot be sent, no worker)
        is the last of them: what was answered before it is there, what follows was not begun. For the queue it is one
        command. As submit otherwise. Raises: EffectError - the rows are not equally long.
        """
        if len(set(map(len, rows))) > 1:
            raise EffectError("submit_many needs rows of equally many arguments")
        if not self._room.acquire(timeout=self._wait_s):
            raise self._full()
        return self._begin_with_room(self._outcomes, function, rows)

    def _outcomes(self, function: Any, rows: Sequence[Sequence[Any]]) -> list[Any]:
        outcomes: list[Any] = []
        if not rows:
            return outcomes
        try:
            for outcome in self.imap(function, *zip(*rows, strict=True), on_error="return"):
                outcomes.append(outcome)  # noqa: PERF402 - what came before an error must be there
        except Exception as error:  # noqa: BLE001 - it is answered
            outcomes.append(error)
        return outcomes

    async def aio(self, command: Any, deadline_s: float | None = None) -> Any:
        """`await pool.aio(command)`. Cancelling it ends the worker that is running it, as a deadline does.

        While the queue is full it waits for room without blocking the loop. Raises: as run.
        """
        last_s = time.monotonic() + self._wait_s
        while not self._room.acquire(blocking=False):
            if time.monotonic() >= last_s:
                raise self._full()
            await asyncio.sleep(_ROOM_LOOK_S)
        ticket = cancelling.Ticket()
        future = self._begin_with_room(self._run_with, ticket, command, deadline_s)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # Not in a thread of the pool, which may all be busy with commands.
            threading.Thread(target=ticket.cancel, name="fxcell-cancel", daemon=True).start()
            raise

    def _begin_with_room(self, act: Callable[..., Any], *args: Any) -> Future[Any]:
        try:
            future = self._begin(act, *args)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _begin(self, act: Callable[..., Any], *args: Any) -> Future[Any]:
        with self._closing:
            if self._closed:
                raise PoolClosed(CLOSED)
            future = self._threads.submit(contextvars.copy_context().run, act, *args)
            self._pending.add(future)
        future.add_done_callback(self._ended)
        return future

    def _run_with(self, ticket: cancelling.Ticket | None, command: Any, deadline_s: float | None) -> Any:
        with contextlib.nullcontext() if ticket is None else ticket.in_this_thread():
            return self.run(command, deadline_s)

    def _full(self) -> PoolBusy:
        return PoolBusy(f"the queue of the pool was full for {self._wait_s:g} s; submit less at once, or allow more workers")

    def _ended(self, future: Future[Any]) -> None:
        with self._closing:
            self._pending.discard(future)

    # --- many commands

    def map(
        self, function: Any, *inputs: Iterable[Any], on_error: Literal["raise", "return"] = "raise",
        deadline_s: float | None = None, progress: bool | str = False,
    ) -> list[Any]:  # fmt: skip
        """`[function(x) | run for x in input]` over the workers, in the order of the inputs.

        Short calls travel many at a time, as many as take about 5 ms; each still has an outcome of its own.

        function:   a zef_function, or anything that can be called and sent by value.
        on_error:   "return" puts each OutcomeError in the place of its result.
        deadline_s: seconds for each call, as for run.
        progress:   True, or a label, shows a bar on standard error where that is a terminal.

        Raises: as run, for the first input that has no result; what the inputs raise. What was not begun then is dropped.
        """
        return list(self.imap(function, *inputs, on_error=on_error, deadline_s=deadline_s, progress=progress))

    def imap(
        self, function: Any, *inputs: Iterable[Any], on_error: Literal["raise", "return"] = "raise",
        deadline_s: float | None = None, ordered: bool = True, progress: bool | str = False,
    ) -> Iterator[Any]:  # fmt: skip
        """As map, one by one: inputs are taken as workers get free. ordered: False gives results as they come.

        Inputs are read ahead of the results: an iterator that gives one buffer again and again must give copies.
        """
        if on_error not in ("raise", "return"):
            raise EffectError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        if not inputs:
            raise EffectError("map needs a function and at least one iterable of inputs")
        if deadline_s is not None:
            check_seconds("deadline_s", deadline_s)
        call = as_call(function)
        call(*[None] * len(inputs))  # raises TypeError when it does not take so many arguments
        seconds = self._deadline_s if deadline_s is None else deadline_s
        mapping = Mapping(
            lambda rows: self._sender.many(call.definition, rows, seconds),
            None if self._threads.runs_this_thread else lambda act: self._launch(act, mapping),
            runners=self._workers.maximum, window=self._queue,
        )  # fmt: skip
        outcomes = mapping.outcomes(inputs, ordered=ordered, return_errors=on_error == "return")
        if progress is False:
            return outcomes
        label = call.definition.name if progress is True else progress
        return bar.shown(outcomes, bar.total_of(inputs), label)

    def _launch(self, act: Callable[[], None], mapping: Mapping) -> None:
        def ended(future: Future[Any]) -> None:
            if future.cancelled():
                mapping.fail(PoolClosed("the pool was closed before all inputs had been run"))

        self._begin(act).add_done_callback(ended)

    # --- end

    @property
    def workers(self) -> int:
        """How many workers there are now."""
        return self._workers.count

    @property
    def started(self) -> int:
        """How many workers were started since the pool was made."""
        return self._workers.started

    def close(self) -> None:
        """End every worker at once, and refuse what waits. Commands that run end as WorkerCrash(stopped)."""
        try:
            for future in self._close_queue():
                future.cancel()
        finally:  # a done-callback can raise SystemExit
            self._workers.close()

    def join(self, *, cancel_waiting: bool = False) -> None:
        """Take no more commands, wait for those that were submitted, and end the workers.

        cancel_waiting: True cancels those that no worker has begun.
        """
        if self._threads.runs_this_thread:
            raise EffectError(
                "join() in a done-callback or an effect handler of this pool would wait for itself: use close(), or another thread"
            )
        pending = self._close_queue()
        if cancel_waiting:
            pending = [future for future in pending if not future.cancel()]
        wait(pending)
        self._workers.close()

    def _close_queue(self) -> list[Future[Any]]:
        with self._closing:
            if not self._closed:
                self._closed = True
                self._threads.close()
            return list(self._pending)

    def _forget_after_fork(self) -> None:
        # Its locks may have been held, and its workers go on belonging to the parent.
        self._closing, self._closed = threading.Lock(), True
        self._pending.clear()
        self.quarantine.forget_after_fork()
        self._room = threading.BoundedSemaphore(1)
        self._workers.forget_after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is None:
            self.join()
        else:
            self.close()


def _abandon(workers: Workers, threads: DaemonExecutor) -> None:
    """Nobody holds the pool any more. In a thread: the garbage collector runs in the middle of anything."""
    if not workers.is_closed:
        threads.close()
        threading.Thread(target=workers.close, name="fxcell-pool-end", daemon=True).start()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for pool in list(_pools):
        pool._forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)
