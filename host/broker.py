"""The broker: a worker asks for an effect, the broker judges it, performs it, records it, answers.

    worker --FX value--> perform: rules -> budget (-> gate) -> deadline -> handler -> record --result or outcome--> worker

One broker belongs to one worker, and one thread at a time uses it. What it holds about the past (records, last_effect,
open_effect, last_denial) is evidence for WorkerCrash and the audit.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fxcell.host.effects import HANDLERS
from fxcell.host.effects.basic import visible
from fxcell.host.effects.context import Context
from fxcell.host.gates import Bucket, gates_for
from fxcell.host.log_text import traceback_text
from fxcell.host.observing import Observer
from fxcell.policies import rules
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EffectFailed, InternalError
from fxcell.policies.names import size_text
from fxcell.policies.policy import Policy

__all__ = ["Broker", "Context", "EffectRecord", "perform_locally"]

_MAX_DETAIL_CHARACTERS = 200
_log = logging.getLogger("fxcell.broker")


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """One effect that a worker asked for.

    number:  1 for the worker's first.              outcome: done, denied, failed or cancelled.
    detail:  what was asked, and unless it was done why not; one visible line.
    seconds: from the question to the answer.
    """

    number: int
    effect: str
    outcome: str
    detail: str
    started_unix_s: float
    seconds: float


class Broker:
    """Performs the effects of one worker under its policy.

    performed:   effects handed to a handler during this command, whatever came of them: above 0, never replay it.
    refused:     effects of this command that were denied before they were handed to one. They use up limits.effects too:
                 each is a record in the audit log, and a plugin must not push the rest out of it.
    last_denial: the last EffectDenied of this command, or None.
    performer:   answers an effect that was judged and counted; by default its handler. A replay answers from a record.
    simulated:   True where the performer only answers in an effect's place: the audit must not say that it was done.
    observer:    who is told of every decision, for all brokers: see fxcell.host.observing.
    command, plugin: digests of what is running, where somebody asked for them; else "".
    """

    observer: Observer | None = None

    def __init__(self, policy: Policy, worker: str, *, history: int = 256, rates: Mapping[str, Bucket] | None = None) -> None:
        self.policy = policy
        self.worker = worker
        self.records: deque[EffectRecord] = deque(maxlen=history)
        self.last_effect: str | None = None
        self.open_effect: str | None = None
        self.performed = self.refused = 0
        self.last_denial: EffectDenied | None = None
        self.performer: Callable[[Effect, Context], Any] = _handle
        self.simulated = self._unjudged = False
        self.command = self.plugin = ""
        self._calls: dict[str, int] = {}
        self._gates = gates_for(policy, rates)
        self._number = 0

    @property
    def over_budget(self) -> int:
        """How many effects of this command were refused after limits.effects was used up."""
        return max(0, self.performed + self.refused - self.policy.limits.effects)

    def begin_command(self) -> None:
        """Reset what is counted per command."""
        self.performed = self.refused = 0
        self.last_denial = None
        self._unjudged = False
        self._calls.clear()
        for gate in self._gates.values():
            gate.begin_command()

    def perform(self, effect: Effect, context: Context) -> Any:
        """Judge, perform and record one effect; answer its result.

        Before: context.policy is the broker's own.
        Raises: EffectDenied - the rules, or a budget that is used up. EffectFailed - the handler could not.
        """
        if context.policy is not self.policy:  # None would mean the host's own authority
            raise InternalError(f"an effect of worker {self.worker} came with another policy than the worker's")
        name = effect.effect_name
        self._number += 1
        self.last_effect = self.open_effect = name
        started_unix_s, started = time.time(), time.perf_counter()
        observer, number, result, performed = self.observer, self._number, None, self.performed
        outcome, reason = "cancelled", ""  # what stays when something other than an outcome ends it (KeyboardInterrupt)
        try:
            self._check_budget(name)  # first: a refusal by the rules looks for what to suggest, which takes a millisecond
            self._judge(effect)
            gate = self._gates.get(name)
            self._check_calls(name)
            if gate is not None:
                gate.admit(effect, context)
            if observer is not None:
                observer.effect_granted(self, effect, number)
            self._calls[name] = self._calls.get(name, 0) + 1
            self.performed += 1
            result = self.performer(effect, context)
            if gate is not None:
                gate.settle(result)
            outcome = "done"
        except EffectDenied as denied:
            self.last_denial = denied
            self.refused += self.performed == performed  # a denied redirect or answer was performed, and is counted
            outcome, reason = "denied", denied.rule
            raise
        except EffectFailed as failed:
            outcome = "cancelled" if failed.kind == "cancelled" else "failed"
            reason = f"{failed.kind}: {failed.message}"
            raise
        finally:
            self.open_effect = None
            detail = summary(effect)
            if reason:
                detail = f"{detail} - {visible(reason)}" if detail else visible(reason)
            seconds = time.perf_counter() - started
            record = EffectRecord(number, name, outcome, detail, started_unix_s, seconds)
            self.records.append(record)
            if observer is not None:
                observer.effect_ended(self, effect, record, reason, result)
        return result

    def _judge(self, effect: Effect) -> None:
        """Ask the rules. Raises EffectDenied; an effect that they cannot judge is denied too."""
        try:
            rules.check(self.policy, effect)
        except EffectDenied:
            raise
        except Exception as error:
            if not self._unjudged:  # once in a command: a plugin can ask again and again
                self._unjudged = True
                told = effect.effect_name, self.worker, traceback_text(error)
                _log.error("the rules could not judge an effect FX.%s of worker %s\n%s", *told)
            raise EffectDenied(effect.effect_name, None, "it could not be judged", self.policy.name, "") from error

    def _check_budget(self, name: str) -> None:
        """Raise EffectDenied where the budget for all effects has no room for one more."""
        total, limit = self.performed + self.refused, self.policy.limits.effects
        if total >= limit:
            rule = f"the command has used up limits.effects = {limit}, the budget for all its effects, refused ones too"
            raise EffectDenied(name, None, rule, self.policy.name, f"limits.effects = {max(limit * 2, 1)}")

    def _check_calls(self, name: str) -> None:
        """Raise EffectDenied where max_calls has no room for one more of this effect."""
        used, allowed = self._calls.get(name, 0), rules.calls_allowed(self.policy, name)
        if used >= allowed:
            rule = f"the command has used up effects.{name}.max_calls = {allowed}"
            raise EffectDenied(name, None, rule, self.policy.name, f"effects.{name}.max_calls = {allowed * 2}")


def perform_locally(effect: Effect, context: Context) -> Any:
    """Perform an effect of the host for itself: the same handlers, no rules and no budget.

    Before: context.policy is None.
    Raises: EffectFailed.
    """
    return _handle(effect, context)


def _handle(effect: Effect, context: Context) -> Any:
    """Call the handler; nothing but EffectDenied and EffectFailed comes out of it, and nothing after the deadline."""
    name = effect.effect_name
    handler = HANDLERS.get(name)
    if handler is None:
        raise EffectFailed(name, "no_handler", "this host has no handler for it; see fxcell.host.effects.register")
    if not math.isfinite(context.deadline) or time.monotonic() >= context.deadline:
        raise EffectFailed(name, "timeout", "the command's deadline was over before it began")
    try:
        result = handler(effect, context)
    except (EffectDenied, EffectFailed, KeyboardInterrupt):
        raise
    except BaseException as error:
        # SystemExit too: no handler ends the host, or takes the outcome from who waits for it.
        # The text and the traceback can hold host paths and whatever the plugin sent: the log gets both, made harmless;
        # the plugin gets neither.
        _log.error("the handler of FX.%s failed for worker %s\n%s", name, context.worker, traceback_text(error))
        raise EffectFailed(name, "internal", "the host's handler failed; the host's log says why") from error
    if time.monotonic() >= context.deadline:
        raise EffectFailed(name, "timeout", "the command's deadline passed while it was performed")
    return result


def summary(effect: Effect) -> str:
    """The fields in one visible line, cut; its cost does not grow with the size of the values."""
    if not effect.effect_fields:
        return ""
    shown = ", ".join(f"{name}={_brief(getattr(effect, name))}" for name in effect.effect_fields)
    return visible(shown if len(shown) <= _MAX_DETAIL_CHARACTERS else f"{shown[: _MAX_DETAIL_CHARACTERS - 1]}…")


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return repr(value[:_MAX_DETAIL_CHARACTERS])
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 256 else f"int of {value.bit_length()} bits"
    return f"{type(value).__name__}{size_text(value)}"
