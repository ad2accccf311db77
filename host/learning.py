"""Learning a policy: the smallest one under which a plugin does what it did once.

    1 run     widest filter, effects granted as they come, performed or simulated -> value, effects with answers
    n trials  the same call under less and less, with the recorded answers: whatever the run passes without is left out
    policy    what is left, each line with what happened without it; tried once more

The plugin is not trusted with more than a hardened worker: the widest filter is that of every word of `allow`. Trials
perform nothing. What the run performs is its Mode's to say (learning_tapes.py).
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fxcell.host import registry, tapes, templates
from fxcell.host.effects.context import Caller
from fxcell.host.learning_tapes import Answers, Learner, Mode
from fxcell.policies import values
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.errors import EffectDenied, OutcomeError, PluginError, PolicyError
from fxcell.policies.limits import GiB, Limits, MiB
from fxcell.policies.plugin_names import is_plugin_name
from fxcell.policies.policy import Policy
from fxcell.policies.rule import Rule
from fxcell.policies.words import WORDS

if TYPE_CHECKING:
    from fxcell.host.plugins import Plugin

WIDE = Limits(
    memory_bytes=2 * GiB, cpu_s=120.0, wall_s=240.0, processes=32, threads=128, open_files=512, file_bytes=1 * GiB,
    scratch_bytes=256 * MiB, scratch_files=65_536, message_bytes=512 * MiB, output_bytes=64 * MiB, effects=1_000_000,
    stack_bytes=64 * MiB,
)  # fmt: skip
"""The limits of the first run: a plugin that needs more is not learnt."""

_STRONGEST_FIRST = ("writable_code", "processes", "scratch", "load_libraries", "threads")
"""Every word, in the order in which it is tried without them: one can open what another opens too, as fork does threads."""

_TRIAL_S = 10.0
"""The least that a trial may take in seconds; a run that took long gives its trials ten times as long."""


@dataclass(slots=True)
class Learnt:
    """What was learnt.

    policy:    the smallest policy that was found, or None.
    outcome:   the value of the first run, or the OutcomeError that ended it.
    fault:     why there is no policy, in words, or "".
    reasons:   line ("allow.threads", "limits.memory_bytes", "effects.Print") -> what happened without it.
    asked:     effect -> how often it was asked for.      simulated: effect -> how often it was only simulated.
    left_out:  effect -> the rule it was granted by in the run, where the plugin goes on just so without it.
    same:      trials could be held to the very value of the run; False for a plugin that answers another each time.
    """

    policy: Policy | None
    outcome: Any
    fault: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    simulated: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Rule] = field(default_factory=dict)
    same: bool = True


class _Trials:
    """Tries the call of the first run under other policies. told_bytes: by FX.Print and FX.Log, which trials do not perform."""

    def __init__(self, command: Any, learner: Learner, outcome: Any, seconds: float, name: str) -> None:
        self.name = name
        self.command = command
        self.answers = learner.answers
        self.told_bytes = learner.told_bytes
        self.expected = values.encode_value(outcome)
        self.seconds = seconds
        self.same = True

    def fault(self, policy: Policy) -> str:
        """What goes wrong under the policy, in one line; "" when the run passes."""
        try:
            outcome = _sent(policy, self.command, Answers(self.answers), self.seconds, self.name)
        except PolicyError as error:
            return error.message
        if isinstance(outcome, OutcomeError):
            return _in_words(outcome)
        if self.same and values.encode_value(outcome) != self.expected:
            return "it answers another value"
        return ""


def learn(plugin: Plugin, arguments: dict[str, Any], mode: Mode = Mode.CAREFUL) -> Learnt:
    """Run a plugin once under the widest filter, then narrow the policy down by trials.

    Raises: IsolationUnavailable, WorkerCrash(start_failed) - no worker can be had here. EffectError - the arguments.
    """
    base = Policy(name=plugin.name, allow=frozenset(WORDS), limits=WIDE)
    command = plugin.call(**arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fxcell-learn-") as state:
        learner = Learner(base, plugin, mode, os.path.realpath(state))
        outcome = _sent(base, command, learner, WIDE.wall_s, plugin.name)
    asked = Counter(effect.effect_name for effect, _ in learner.answers)
    learnt = Learnt(None, outcome, asked=asked, simulated=learner.simulated)
    if isinstance(outcome, OutcomeError):
        learnt.fault = f"the run did not end with a value: {outcome}"
        return learnt
    trials = _Trials(command, learner, outcome, max(_TRIAL_S, 10 * (time.monotonic() - started)), plugin.name)
    widest = learner.grants.policy
    fault = trials.fault(widest)
    if fault:
        trials.same = learnt.same = False
        fault = trials.fault(widest)
    policy = widest if fault else _narrowed(widest, trials, learnt.reasons)
    fault = fault or trials.fault(policy)
    if fault:
        learnt.fault = f"the plugin does something else each time: under what the run needed, {fault}"
        return learnt
    learnt.policy = policy
    learnt.left_out = {name: rule for name, rule in widest.effects.items() if name not in policy.effects}
    return learnt


def _sent(policy: Policy, command: Any, tape: tapes.Tape, seconds: float, name: str) -> Any:
    """The value of the command in a new worker of the plugin, or the OutcomeError that ended it."""
    caller = Caller(name, (name,)) if is_plugin_name(name) else None  # as `fxcell run`: without a name it keeps no state
    others = templates.is_running(policy)
    try:
        process = registry.start(policy, caller)
        try:
            with tapes.attached(process, tape):
                return registry.command(process, command, seconds)
        except OutcomeError as error:
            return error
        finally:
            registry.stop(process)
    finally:
        if not others:  # some dozen policies are tried, each once
            templates.close(policy)


def _narrowed(policy: Policy, trials: _Trials, reasons: dict[str, str]) -> Policy:
    """Without every word, effect and limit that the run passes without; reasons gets what happened without the others."""
    bare = policy.replaced(allow=frozenset(), limits=Limits())
    if not trials.fault(bare):
        policy = bare
    for word in sorted(policy.allow, key=_STRONGEST_FIRST.index):
        less = _without_word(policy, word)
        fault = trials.fault(less)
        policy = policy if fault else less
        if fault:
            reasons[f"allow.{word}"] = fault
    for name in sorted(policy.effects):
        less = policy.replaced(effects={other: rule for other, rule in policy.effects.items() if other != name})
        fault = trials.fault(less)
        policy = policy if fault else less
        if fault:
            reasons[f"effects.{name}"] = fault
    return _with_least_limits(policy, trials, reasons)


def _without_word(policy: Policy, word: str) -> Policy:
    limits = policy.limits
    if word == "scratch":
        limits = dataclasses.replace(limits, scratch_bytes=0)
    if word == "processes":
        limits = dataclasses.replace(limits, processes=1)
    return policy.replaced(allow=policy.allow - {word}, limits=limits)


def _with_least_limits(policy: Policy, trials: _Trials, reasons: dict[str, str]) -> Policy:
    least = Limits()
    if trials.told_bytes > least.output_bytes:
        enough = next(n for n in _doubled(least.output_bytes, 2 * WIDE.output_bytes) if n >= trials.told_bytes)
        least = dataclasses.replace(least, output_bytes=enough)
        limits = dataclasses.replace(policy.limits, output_bytes=max(enough, policy.limits.output_bytes))
        policy = policy.replaced(limits=limits)
        reasons["limits.output_bytes"] = f"FX.Print and FX.Log had {trials.told_bytes:,} bytes"
    if policy.limits == least:
        return policy
    if "scratch" in policy.allow:
        least = dataclasses.replace(least, scratch_bytes=1 * MiB)
    if "processes" in policy.allow:
        least = dataclasses.replace(least, processes=2)
    if not trials.fault(policy.replaced(limits=least)):
        return _explained(policy.replaced(limits=least), reasons)
    limits = policy.limits
    for name, low in least.to_data().items():
        for value in _doubled(low, getattr(limits, name)):
            tried = dataclasses.replace(limits, **{name: value})
            fault = trials.fault(policy.replaced(limits=tried))
            if not fault:
                limits = tried
                break
            reasons[f"limits.{name}"] = f"with {value:,}, {fault}"
    return _explained(policy.replaced(limits=limits), reasons)


def _doubled(low: float, high: float) -> Iterator[Any]:
    value = low
    while value < high:
        yield value
        value *= 2


def _explained(policy: Policy, reasons: dict[str, str]) -> Policy:
    for name, word in (("scratch_bytes", "scratch"), ("processes", "processes")):
        if word in policy.allow:
            reasons.setdefault(f"limits.{name}", f'"{word}" needs it')
    return policy


def _in_words(outcome: OutcomeError) -> str:
    if isinstance(outcome, WorkerCrash):
        call = outcome.evidence.syscall
        # Addresses and numbers of processes are others each time.
        return f"the system call {call.name} ends it" if call else str(outcome)
    if isinstance(outcome, EffectDenied):
        return f"FX.{outcome.effect} is denied"
    return f"{outcome.type_name}: {outcome.message:.100}" if isinstance(outcome, PluginError) else str(outcome)
