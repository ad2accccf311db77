"""`run` in the host process: what performs FX values here, starts workers, and sends commands to them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from fxcell.host import broker, cancelling, registry
from fxcell.host.background import DaemonExecutor
from fxcell.host.effects.context import Caller, Context
from fxcell.host.outputs import Outputs
from fxcell.policies import builtin
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectError
from fxcell.policies.loader import load_policy
from fxcell.policies.plugin_names import check_plugin_name
from fxcell.policies.policy import Policy
from fxcell.policies.running import Runner

_LOCAL_DEADLINE_S = 24 * 3600.0
"""Seconds an effect may take that the host performs for itself: nothing waits for ever."""

_SUBMIT_THREADS = 64


class HostRunner(Runner):
    """`value | run`, `run(value)`, `run.outcome(value)`, `run.submit(value)`, `await run.aio(value)`."""

    def perform(self, effect: Effect) -> Any:
        """Perform one effect with the host's own authority; worker-process effects act on this host's workers."""
        act = _WORKER_EFFECTS.get(type(effect))
        if act is not None:
            return act(effect)
        context = Context("host", None, time.monotonic() + _LOCAL_DEADLINE_S, _sleep, _host_output().line)
        return broker.perform_locally(effect, context)

    def submit(self, value: Any) -> Future[Any]:
        """Run a value in a thread of this host; the Future has its result or raises its outcome."""
        return _threads().submit(contextvars.copy_context().run, self, value)

    def aio(self, value: Any) -> Awaitable[Any]:
        """`await run.aio(value)`: the same for asyncio, without blocking the loop.

        It begins at once. Cancelling it (asyncio.timeout, wait_for) ends the worker that is running it, as a deadline does.
        Where no loop runs yet, as in `asyncio.run(run.aio(value))`, it is a coroutine, and begins when the loop runs it.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._in_a_loop(value)
        ticket = cancelling.Ticket()
        task = _threads().submit(contextvars.copy_context().run, self._with_ticket, ticket, value)
        future = asyncio.wrap_future(task)
        future.add_done_callback(functools.partial(_cancel_too, ticket))
        return future

    async def _in_a_loop(self, value: Any) -> Any:
        return await self.aio(value)

    def _with_ticket(self, ticket: cancelling.Ticket, value: Any) -> Any:
        with ticket.in_this_thread():
            return self(value)


def _cancel_too(ticket: cancelling.Ticket, done: asyncio.Future[Any]) -> None:
    if done.cancelled():
        # Not in one of those that run commands: all may be busy with what is to be cancelled.
        threading.Thread(target=ticket.cancel, name="fxcell-cancel", daemon=True).start()


@functools.cache
def _threads() -> DaemonExecutor:
    return DaemonExecutor(_SUBMIT_THREADS, "fxcell-run")


@functools.cache
def _host_output() -> Outputs:
    return Outputs(Policy(effects={"Print": True}))  # type: ignore[dict-item]


def _sleep(seconds: float) -> bool:
    threading.Event().wait(seconds)
    return False


def _start(effect: builtin.StartWorkerProcess) -> Any:
    if effect.plugin is None:
        return registry.start(load_policy(effect.policy))
    check_plugin_name("FX.StartWorkerProcess.plugin", effect.plugin)
    return registry.start(load_policy(effect.policy), Caller(effect.plugin, (effect.plugin,)))


def _send(effect: builtin.SendCommandToWorkerProcess) -> Any:
    deadline_s = effect.deadline_s
    if deadline_s is not None and not (math.isfinite(deadline_s) and deadline_s > 0):
        raise EffectError(f"FX.SendCommandToWorkerProcess.deadline_s must be a finite number above 0, got {deadline_s}")
    return registry.command(effect.process, effect.command, deadline_s)


def _stop(effect: builtin.StopWorkerProcess) -> None:
    registry.stop(effect.process)


def _list(_effect: builtin.ListWorkerProcesses) -> list[dict[str, Any]]:
    return registry.list_living()


_WORKER_EFFECTS: dict[type[Effect], Callable[[Any], Any]] = {
    builtin.StartWorkerProcess: _start,
    builtin.SendCommandToWorkerProcess: _send,
    builtin.StopWorkerProcess: _stop,
    builtin.ListWorkerProcesses: _list,
}

run = HostRunner()
"""The one runner of this process."""
