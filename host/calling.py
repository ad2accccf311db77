"""CallPlugin: one plugin asks another for something, and the host stands between them.

    caller ──FX.CallPlugin──▶ broker ─ chain, depth ─▶ thread ─▶ new worker, the callee's own policy ─▶ result
       ▲                                                                                                │
       └────────── decoded by the host, encoded again ◀─────────────────────────────────────────────────┘

Each call has a worker of its own, started for it and ended with it: nothing that one caller gave stays for the next. Each
call also has a thread of its own, never one of a pool: calls wait for calls below them, and a pool whose threads all wait
would stop. There are never more such threads than workers that wait, times the eight levels a chain can have. The caller's
thread waits beside it, so the end of the caller's time, or of the caller, ends the callee at once.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from fxcell.host import callees, registry
from fxcell.host.callees import Callee
from fxcell.host.effects.basic import visible
from fxcell.host.effects.context import Caller, Context, Pace, pace_of
from fxcell.host.log_text import traceback_text
from fxcell.policies.builtin import CallPlugin
from fxcell.policies.call_rule import MAX_DEPTH, CallRule
from fxcell.policies.calls import Call
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import EffectDenied, EffectFailed, FxcellError, PluginError, UserError, WorkerStopped
from fxcell.policies.running import carries_work

_LOOK_S = 0.05
"""How soon the caller's death is noticed."""
_MAX_TEXT_CHARACTERS = 300
_log = logging.getLogger("fxcell.calls")


def perform_call_plugin(effect: CallPlugin, context: Context) -> Any:
    """Run the other plugin and answer its result.

    Raises: EffectFailed - cycle, depth, not_registered, bad_request; crashed, plugin_error, denied, effect_failed: what
            became of the callee, without its traceback and without anything of the host; unavailable: its worker could
            not be started; timeout, cancelled.
    """
    callee = callees.find(effect.plugin)
    if callee is None:
        raise _failed("not_registered", f"the host has registered no plugin as {effect.plugin!r:.80}")
    if carries_work(effect.arguments):
        # A callee that answers its argument would perform it, for the caller and under its own policy.
        raise _failed("bad_request", "the arguments hold an effect: a plugin is given values; run it, and give its result")
    call = callee.call(effect.function, effect.arguments)
    if call is None:
        known = ", ".join(callee.functions)
        raise _failed("bad_request", f"{effect.function!r:.80} is not a function of {callee.name!r}. Known: {known}")
    pace = pace_of(effect, context)
    called = _Called(callee, call, _below(callee, context), pace)
    called.thread.start()
    try:
        while not called.done.wait(min(_LOOK_S, pace.remaining())):
            pace.check()
    finally:
        called.abandon()
    return called.answer()


def _below(callee: Callee, context: Context) -> Caller:
    """For whom the callee's worker is. Raises EffectFailed(cycle or depth), naming the chain."""
    name, caller = callee.name, context.caller or Caller()
    levels = caller.levels
    if context.policy is not None:
        rule = context.policy.effects["CallPlugin"]
        assert isinstance(rule, CallRule)
        levels = min(levels, rule.max_depth)
    chain = (*caller.chain, name)
    shown = " -> ".join(chain)
    if name in caller.chain:
        raise _failed("cycle", f"{name!r} is waiting for this call already: {shown}")
    if levels < 1:
        raise _failed("depth", f"the call is nested deeper than max_depth, or {MAX_DEPTH} levels, allows: {shown}")
    return Caller(name, chain, levels - 1, rates=callee.rates)


class _Called:
    """One call on its way: what its thread does, and how it is given up."""

    def __init__(self, callee: Callee, call: Call, caller: Caller, pace: Pace) -> None:
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"fxcell-call-{callee.name}", daemon=True)
        self._callee, self._call, self._caller, self._pace = callee, call, caller, pace
        self._process: WorkerProcess | None = None
        self._given_up = False
        self._turn = threading.Lock()
        self._result: Any = None
        self._error: BaseException | None = None

    def abandon(self) -> None:
        """End the callee, if it still runs; a worker that is only being started ends as soon as it is there."""
        with self._turn:
            self._given_up, process = True, self._process
        if process is not None:
            registry.stop(process)

    def answer(self) -> Any:
        """Before: done. Raises EffectFailed for every way in which it did not go well."""
        if self._error is not None:
            raise _told(self._callee.name, self._error) from self._error
        return self._result

    def _run(self) -> None:
        try:
            self._pace.remaining()
            process = registry.start(self._callee.policy, self._caller)
            try:
                with self._turn:
                    self._process = process
                    given_up = self._given_up
                if not given_up:
                    self._result = registry.command(process, self._call, self._pace.end - time.monotonic())
            finally:
                registry.stop(process)
        except BaseException as error:  # noqa: BLE001 - answer() tells the caller
            self._error = error
        finally:
            self.done.set()


def _told(name: str, error: BaseException) -> EffectFailed:
    """What the caller hears of a callee that did not answer."""
    if isinstance(error, WorkerCrash):
        _log.warning("the plugin %s crashed when it was called: %s", name, visible(str(error)))
        return _failed("crashed", f"the plugin {name!r} crashed: {error.reason.value}")
    if isinstance(error, PluginError):
        text = f"{error.type_name}: {error.message}" if error.message else error.type_name
        return _failed("plugin_error", f"the plugin {name!r} raised {visible(text[:_MAX_TEXT_CHARACTERS])}")
    if isinstance(error, EffectDenied):
        return _failed("denied", f"the plugin {name!r} was denied FX.{error.effect}")
    if isinstance(error, EffectFailed):
        if error.effect == "CallPlugin":
            return _failed(error.kind, error.message)  # of the callee's own call, told in the same careful way
        return _failed("effect_failed", f"an effect of the plugin {name!r} failed: FX.{error.effect} ({error.kind})")
    if isinstance(error, WorkerStopped):
        return _failed("cancelled", f"the worker of the plugin {name!r} was stopped by the host")
    _log.error("the plugin %s could not be called\n%s", name, traceback_text(error))
    if isinstance(error, UserError):
        return _failed("bad_request", f"the call of {name!r} cannot be sent: {visible(str(error)[:_MAX_TEXT_CHARACTERS])}")
    if isinstance(error, FxcellError):
        return _failed("unavailable", f"the plugin {name!r} could not be started; the host's log says why")
    return _failed("internal", f"the plugin {name!r} could not be called; the host's log says why")


def _failed(kind: str, text: str) -> EffectFailed:
    return EffectFailed("CallPlugin", kind, text)
