"""Learning a policy: the smallest one under which a plugin does what it did once.

    1 run     widest filter, effects granted as they come, performed or simulated -> value, effects with answers
    n trials  the same call under less and less, with the recorded answers: whatever the run passes without is left out
    policy    what is left, each line with what happened without it; loaded from its text and tried once more

The plugin is not trusted with more than a hardened worker: the widest filter is that of every word of `allow`. Trials
perform nothing. What is performed in the run is `performed_by_default`, all, or nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fxcell.host import registry, tapes, templates
from fxcell.host.learning_grants import Grants
from fxcell.host.recording import Recorder
from fxcell.host.simulate import simulated
from fxcell.policies import targets, values
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, OutcomeError, PluginError, PolicyError
from fxcell.policies.limits import GiB, Limits, MiB
from fxcell.policies.policy import Policy
from fxcell.policies.words import WORDS

if TYPE_CHECKING:
    from fxcell.host.effects.context import Context
    from fxcell.host.plugins import Plugin
    from fxcell.host.sessions import Session

WIDE = Limits(
    memory_bytes=2 * GiB, cpu_s=120.0, wall_s=240.0, processes=32, threads=128, open_files=512, file_bytes=1 * GiB,
    scratch_bytes=256 * MiB, scratch_files=65_536, message_bytes=512 * MiB, output_bytes=64 * MiB, effects=1_000_000,
    stack_bytes=64 * MiB,
)  # fmt: skip
"""The limits of the first run: a plugin that needs more is not learnt."""

_STRONGEST_FIRST = ("writable_code", "processes", "scratch", "load_libraries", "threads")
"""Every word, in the order in which it is tried without them: one can open what another opens too, as fork does threads."""

_HARMLESS = frozenset({"Print", "Log", "Now", "Sleep", "RandomBytes"})
_READING = frozenset({"ReadFile", "ListDirectory", "GetEnvironment", "KeyValueGet", "KeyValueList"})
_MAX_REDIRECTS = 5
_TRIAL_S = 10.0
"""The least that a trial may take in seconds; a run that took long gives its trials ten times as long."""


class Mode(StrEnum):
    """What is performed in the first run.

    CAREFUL:  performed_by_default.      PERFORM: everything.      SIMULATE: nothing.
    """

    CAREFUL = "careful"
    PERFORM = "perform"
    SIMULATE = "simulate"


def performed_by_default(effect: Effect, *, has_read: bool) -> bool:
    """True for effects that change nothing: reading, and GET or HEAD without a body to a host that is not private.

    has_read: files, variables or stored values were read before. Then no host is asked any more: a URL could carry away
              what they hold.
    """
    name = effect.effect_name
    if name in _HARMLESS or name in _READING:
        return True
    if name != "HTTPRequest" or has_read:
        return False
    asked: Any = effect
    try:
        private = targets.is_private_name(targets.http_target(asked.url).host)
    except ValueError:
        return False
    return asked.method in ("GET", "HEAD") and not asked.body and not private


@dataclass(slots=True)
class Learnt:
    """What was learnt.

    policy:    the smallest policy that was found, or None where the run did not end with a value.
    outcome:   the value of the first run, or the OutcomeError that ended it.
    reasons:   line ("allow.threads", "limits.memory_bytes", "effects.Print") -> what happened without it.
    asked:     effect -> how often it was asked for.      simulated: effect -> how often it was only simulated.
    same:      trials could be held to the very value of the run; False for a plugin that answers another each time.
    """

    policy: Policy | None
    outcome: Any
    reasons: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    simulated: Counter[str] = field(default_factory=Counter)
    same: bool = True


class _Learner(Recorder):
    """The tape of the first run: grants what is asked for, performs or simulates it, and keeps it with its answer."""

    def __init__(self, base: Policy, plugin: Plugin, mode: Mode) -> None:
        super().__init__(base, plugin)
        self.grants = Grants(base, plugin.requested_effects)
        self.mode = mode
        self.answers: list[tuple[Effect, Any]] = []
        self.simulated: Counter[str] = Counter()
        self._has_read = False
        self._perform: Callable[[Effect, Context], Any] | None = None

    def effect(self, session: Session, effect: Effect, context: Context) -> Any:
        """As Recorder, under a policy that grants the effect if any can."""
        broker = session.broker
        if self._perform is None:
            self._perform, broker.performer = broker.performer, self._answer
        self.grants.include(effect)
        broker.policy = self.grants.policy
        try:
            result = super().effect(session, effect, dataclasses.replace(context, policy=broker.policy))
        except OutcomeError as refusal:
            self.answers.append((effect, refusal))
            raise
        self.answers.append((effect, result))
        return result

    def _answer(self, effect: Effect, context: Context) -> Any:
        if self.mode is Mode.PERFORM or (
            self.mode is Mode.CAREFUL and performed_by_default(effect, has_read=self._has_read)
        ):
            self._has_read = self._has_read or effect.effect_name in _READING
            return self._performed(effect, context)
        self.simulated[effect.effect_name] += 1
        return simulated(effect, context)

    def _performed(self, effect: Effect, context: Context) -> Any:
        assert self._perform is not None
        for _ in range(_MAX_REDIRECTS):
            try:
                return self._perform(effect, context)
            except EffectDenied as denied:
                # A redirect to a host that was not granted. It is followed by asking once more, so only by what may be
                # asked twice; to a private host only where everything is to be performed.
                again = getattr(effect, "method", "") in ("GET", "HEAD")
                private = "private_hosts" in denied.suggestion and self.mode is not Mode.PERFORM
                if not again or private or not self.grants.follow(denied, effect):
                    raise
                context = dataclasses.replace(context, policy=self.grants.policy)
        return self._perform(effect, context)


class _Answers:
    """The tape of a trial: judged by the policy on trial, answered from the first run; what is new is simulated."""

    def __init__(self, kept: list[tuple[Effect, Any]]) -> None:
        self._kept: dict[bytes, deque[Any]] = {}
        for effect, answer in kept:
            self._kept.setdefault(values.encode_value(effect), deque()).append(answer)

    def command(self, _session: Session, _value: Any, go: Callable[[], Any]) -> Any:
        """Run the command."""
        return go()

    def effect(self, session: Session, effect: Effect, context: Context) -> Any:
        """Judge, then answer."""
        session.broker.performer = self._answer
        return session.broker.perform(effect, context)

    def _answer(self, effect: Effect, context: Context) -> Any:
        answers = self._kept.get(values.encode_value(effect))
        if not answers:
            return simulated(effect, context)
        # The last answer stands for all later ones: a trial may ask more often than the run did.
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if isinstance(answer, OutcomeError):
            raise answer
        return answer


class _Trials:
    """Tries the call of the first run under other policies."""

    def __init__(self, command: Any, learner: _Learner, outcome: Any, seconds: float) -> None:
        self.command = command
        self.answers = learner.answers
        self.expected = values.encode_value(outcome)
        self.seconds = seconds
        self.same = True

    def fault(self, policy: Policy) -> str:
        """What goes wrong under the policy, in one line; "" when the run passes."""
        try:
            outcome = _sent(policy, self.command, _Answers(self.answers), self.seconds)
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
    learner = _Learner(base, plugin, mode)
    started = time.monotonic()
    outcome = _sent(base, command, learner, WIDE.wall_s)
    asked = Counter(effect.effect_name for effect, _ in learner.answers)
    learnt = Learnt(None, outcome, {}, asked, learner.simulated)
    if isinstance(outcome, OutcomeError):
        return learnt
    trials = _Trials(command, learner, outcome, max(_TRIAL_S, 10 * (time.monotonic() - started)))
    widest = learner.grants.policy
    if trials.fault(widest):
        trials.same = learnt.same = False
    policy = _narrowed(widest, trials, learnt.reasons)
    fault = trials.fault(policy)
    if fault:
        learnt.outcome = PluginError("NotLearnt", f"the plugin does something else each time: under what was learnt, {fault}")
        return learnt
    learnt.policy = policy
    return learnt


def _sent(policy: Policy, command: Any, tape: tapes.Tape, seconds: float) -> Any:
    """The value of the command in a new worker, or the OutcomeError that ended it."""
    others = templates.is_running(policy)
    try:
        process = registry.start(policy)
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
