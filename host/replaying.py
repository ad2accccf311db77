"""Replaying: the commands of a record once more, in a real hardened worker, with the recorded answers.

    record -> policy, commands -> worker;   worker --effect--> rules, counts -> the record's answer to effect N -> worker

Nothing is performed: no request, no file, no clock, no wait. Whatever the worker does otherwise than recorded is a
Divergence: another effect, one more or one less, another judgement of the policy, another end. From the first other
effect on there are no answers left, and the worker gets EffectFailed(diverged).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fxcell.host import registry, tapes
from fxcell.host.broker import summary
from fxcell.host.records import Record, RecordedCommand, RecordedEffect, decoded_command
from fxcell.host.redaction import redacted
from fxcell.policies import rules, values
from fxcell.policies.calls import Call
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EffectFailed, OutcomeError, RecordError
from fxcell.policies.names import short
from fxcell.policies.policy import Isolation, Policy

if TYPE_CHECKING:
    from fxcell.host.effects.context import Context
    from fxcell.host.plugins import Plugin
    from fxcell.host.sessions import Session


@dataclass(frozen=True, slots=True)
class Divergence:
    """One way in which the replay was not as recorded.

    what: plugin, policy, effect or outcome.      command: 1 for the first of the record; 0 for all of them.
    effect: the number of the effect in its command, 1 for the first; 0 otherwise.      text: both sides, in words.
    """

    what: str
    command: int
    effect: int
    text: str

    def __str__(self) -> str:
        where = f"command {self.command}, " if self.command > 1 else ""
        return f"{where}effect {self.effect}: {self.text}" if self.effect else f"{where}{self.what}: {self.text}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay. outcomes: one per command: its value, or the OutcomeError that ended it."""

    divergences: tuple[Divergence, ...]
    outcomes: tuple[Any, ...]

    @property
    def same(self) -> bool:
        """True when nothing diverged: same plugin, policy, effects and outcomes."""
        return not self.divergences


class Replayer:
    """A tape that answers every effect of one command from its record. divergences: what was not as recorded, so far."""

    def __init__(self, recorded: RecordedCommand, number: int, *, other_policy: bool = False) -> None:
        self.recorded = recorded
        self.number = number
        self.other_policy = other_policy
        self._counts: Counter[str] = Counter()
        self.divergences: list[Divergence] = []
        self._asked = 0
        self._lost = False

    def command(self, _session: Session, _value: Any, go: Callable[[], Any]) -> Any:
        """Run the command; effects that were not asked for again are divergences."""
        try:
            return go()
        finally:
            if len(self.recorded.effects) > self._asked and not self._lost:
                self._asked += 1
                expected = self.recorded.effects[self._asked - 1]
                self._diverge(f"was not asked for; the record has {_shown(expected.effect())}")

    def effect(self, session: Session, effect: Effect, context: Context) -> Any:
        """The recorded answer, if this is the next recorded effect and the policy judges it as then.

        The broker is not asked: it would count by the clock, ask people, and write into the host's log what is no decision.
        """
        del context
        self._asked += 1
        broker = session.broker
        broker.last_effect = effect.effect_name
        try:
            expected = self._expected(effect)
            self._judge(session.policy, effect, expected)
            broker.performed += 1
            return self._answer(expected, effect)
        except EffectDenied as denied:
            broker.last_denial = denied
            raise

    def _judge(self, policy: Policy, effect: Effect, expected: RecordedEffect | None) -> None:
        """Raise EffectDenied where the fields or the counts of the policy forbid what the record may have granted."""
        try:
            rules.check(policy, effect)
            self._count(policy, effect.effect_name, expected)
        except EffectDenied as denied:
            if expected is not None and expected.outcome != "denied":
                self._diverge(f"{_shown(effect)} is denied ({denied.rule}); in the record it was {expected.outcome}")
            raise
        if expected is not None and expected.outcome == "denied" and not expected.performed and self.other_policy:
            self._diverge(f"{_shown(effect)} is granted; in the record it was denied")

    def _count(self, policy: Policy, name: str, expected: RecordedEffect | None) -> None:
        if expected is not None and not expected.performed:
            return
        self._counts[name] += 1
        allowed = rules.calls_allowed(policy, name)
        if self._counts[name] > allowed or self._counts.total() > policy.limits.effects:
            rule = f"the command has used up its {min(allowed, policy.limits.effects)} of them"
            raise EffectDenied(name, None, rule, policy.name, "")

    def _expected(self, effect: Effect) -> RecordedEffect | None:
        if self._lost:
            return None
        if self._asked > len(self.recorded.effects):
            self._diverge(f"{_shown(effect)} was asked for; the record has no such effect any more")
            self._lost = True
            return None
        expected = self.recorded.effects[self._asked - 1]
        there = expected.effect()
        if not _equal(there, redacted(effect)):
            self._diverge(f"{_shown(effect)} was asked for; the record has {_shown(there)}{_other_field(effect, there)}")
            self._lost = True
            return None
        return expected

    def _answer(self, expected: RecordedEffect | None, effect: Effect) -> Any:
        name = effect.effect_name
        if expected is None:
            raise EffectFailed(name, "diverged", "the record of the run has no answer to this effect")
        if expected.outcome == "done":
            return expected.result()
        if expected.outcome == "cancelled":
            raise EffectFailed(name, "cancelled", "the recorded run was interrupted here")
        told = expected.refusal()
        try:
            raise _refusal(expected.outcome, told)
        except KeyError as error:
            raise RecordError(f"the record holds a refusal without {error}") from error

    def _diverge(self, text: str) -> None:
        self.divergences.append(Divergence("effect", self.number, self._asked, text))


def replay(record: Record, *, plugin: Plugin | None = None, policy: Policy | None = None) -> Replayed:
    """Run the commands of a record again in one worker under its policy; nothing is performed.

    plugin: what to run in place of the recorded code.
    policy: in place of the recorded one. Needed where that is not `full`, preloads modules or shows folders: a record is
            a file of somebody's, and must not decide what runs outside a sandbox or which files are looked at.
    Raises: RecordError; IsolationUnavailable, WorkerCrash(start_failed) - no worker can be had.
    """
    chosen = policy or _own_policy(record)
    found = _differing(record, plugin, policy)
    commands = [_command(recorded.value, plugin) for recorded in record.commands]
    process = registry.start(chosen)
    outcomes: list[Any] = []
    try:
        for number, (recorded, command) in enumerate(zip(record.commands, commands, strict=True), 1):
            tape = Replayer(recorded, number, other_policy=chosen.digest != record.policy_digest)
            outcome: Any
            with tapes.attached(process, tape):
                try:
                    outcome = registry.command(process, command, None)
                except OutcomeError as error:
                    outcome = error
            outcomes.append(outcome)
            found += tape.divergences
            found += _outcome_differs(recorded, outcome, number)
            if isinstance(outcome, WorkerCrash):
                break
        if len(outcomes) < len(record.commands):
            text = f"the worker ended with it; the record has {len(record.commands)} commands"
            found.append(Divergence("outcome", len(outcomes), 0, text))
    finally:
        registry.stop(process)
    return Replayed(tuple(found), tuple(outcomes))


def _own_policy(record: Record) -> Policy:
    policy = record.recorded_policy()
    reasons = {
        f'has isolation = "{policy.isolation.value}"': policy.isolation is not Isolation.FULL,
        "preloads modules, which run outside the sandbox": bool(policy.preload),
        "shows folders of this machine to the plugin": bool(policy.visible),
    }
    for reason, found in reasons.items():
        if found:
            raise RecordError(
                f"the recorded policy {record.policy_name!r:.80} {reason}: a record does not decide that; "
                "name the policy to use with --policy"
            )
    return policy


def _differing(record: Record, plugin: Plugin | None, policy: Policy | None) -> list[Divergence]:
    found = []
    if plugin is not None and plugin.digest != record.plugin_digest:
        there = f"{record.plugin_digest[:12]} ({record.plugin_name})" if record.plugin_digest else "no plugin"
        found.append(Divergence("plugin", 0, 0, f"{plugin.digest[:12]} ({plugin.name}) is run; the record has {there}"))
    digest = (policy or record.recorded_policy()).digest
    if digest != record.policy_digest:
        name = policy.name if policy else f"{record.policy_name}, as this version reads it,"
        text = f"{digest[:12]} ({name}) is used; the record has {record.policy_digest[:12]} ({record.policy_name})"
        found.append(Divergence("policy", 0, 0, text))
    return found


def _command(data: bytes, plugin: Plugin | None) -> Any:
    value = decoded_command(data)
    if plugin is None:
        return value
    if not isinstance(value, Call) or value.args:
        raise RecordError("the record's command is not the call of a plugin: replay it without naming one")
    return plugin.call(**value.kwargs)


def _outcome_differs(recorded: RecordedCommand, outcome: Any, number: int) -> list[Divergence]:
    then, now = recorded.outcome(), outcome
    kind = type(outcome).__name__ if isinstance(outcome, OutcomeError) else "value"
    if kind != recorded.kind:
        return [Divergence("outcome", number, 0, f"{_told(kind, now)}; the record has {_told(recorded.kind, then)}")]
    if kind == "value":
        same = _equal(then, redacted(now))
    else:
        told = outcome.to_dict()
        same = all(told.get(key) == then.get(key) for key in _COMPARED.get(kind, ("message",)))
    if same:
        return []
    return [Divergence("outcome", number, 0, f"{_told(kind, now)}; the record has {_told(kind, then)}")]


_COMPARED = {
    "PluginError": ("type", "message"),
    "EffectDenied": ("effect", "field", "rule"),
    "EffectFailed": ("effect", "kind", "message"),
    "WorkerCrash": ("reason", "signal_name"),
}
"""What must be equal of an outcome. Addresses, times, stacks and the policy's name need not."""


def _told(kind: str, outcome: Any) -> str:
    if kind == "value":
        return f"the value {short(outcome)}"
    message = outcome.get("message", "") if isinstance(outcome, dict) else str(outcome)
    return f"{kind} {message!s:.300}".rstrip()


def _refusal(outcome: str, told: dict[str, Any]) -> EffectDenied | EffectFailed:
    if outcome == "denied":
        return EffectDenied(told["effect"], told["field"], told["rule"], told["policy"], told["suggestion"])
    return EffectFailed(told["effect"], told["kind"], told["message"])


def _equal(one: Any, two: Any) -> bool:
    """Equal values of equal types; sets and tables in any order."""
    return values.encode_value(one) == values.encode_value(two) or bool(_form(one) == _form(two))


def _form(value: Any) -> Any:
    """A hashable stand-in that tells 1, 1.0 and True apart, and takes a NaN for itself."""
    kind = type(value).__name__
    if isinstance(value, Effect):
        return value.effect_name, _form({name: getattr(value, name) for name in value.effect_fields})
    if type(value) is dict:
        return kind, frozenset((_form(key), _form(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return kind, frozenset(map(_form, value))
    if type(value) in (list, tuple):
        return kind, tuple(map(_form, value))
    return kind, values.encode_value(value)


def _shown(effect: Effect) -> str:
    return f"FX.{effect.effect_name}({summary(effect)})"


def _other_field(one: Effect, two: Effect) -> str:
    """For effects that look alike when cut: the field that differs."""
    if _shown(one) != _shown(two):
        return ""
    fields = [name for name in one.effect_fields if not _equal(getattr(one, name), getattr(two, name))]
    return f", with another {' and '.join(fields)}"
