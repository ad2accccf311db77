"""The two tapes of learning: one grants, performs or simulates, and keeps; the other answers trials from what was kept.

run    effect -> a policy that grants it -> performed or simulated -> kept with its answer
trial  effect -> the policy on trial -> the kept answer; a simulated one where the run did not ask for it
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fxcell.host.learning_grants import Grants
from fxcell.host.recording import Recorder
from fxcell.host.simulate import simulated
from fxcell.policies import targets, values
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EffectFailed, OutcomeError
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.policy import Policy
from fxcell.policies.state_rule import StateRule

if TYPE_CHECKING:
    from fxcell.host.effects.context import Context
    from fxcell.host.plugins import Plugin
    from fxcell.host.sessions import Session

_HARMLESS = frozenset({"Print", "Log", "Now", "Sleep", "RandomBytes"})
_READING = frozenset({"ReadFile", "ListDirectory", "GetEnvironment"})
_MAX_REDIRECTS = 5


class Mode(StrEnum):
    """What is performed in the first run.

    CAREFUL:  performed_by_default.      PERFORM: everything.      SIMULATE: nothing.
    """

    CAREFUL = "careful"
    PERFORM = "perform"
    SIMULATE = "simulate"


def performed_by_default(effect: Effect, *, has_read: bool) -> bool:
    """True for effects that change nothing: reading, and GET or HEAD without a body to a host that is not private.

    has_read: files or variables were read before. Then no host is asked any more: a URL could carry away
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


class Learner(Recorder):
    """The tape of the first run: grants what is asked for, performs or simulates it, and keeps it with its answer."""

    def __init__(self, base: Policy, plugin: Plugin, mode: Mode, state: str) -> None:
        """state: an empty directory, for the KeyValue effects that are performed."""
        super().__init__(base, plugin)
        self.grants = Grants(base, plugin.requested_effects)
        self.mode = mode
        self.state = state
        self.answers: list[tuple[Effect, Any]] = []
        self.simulated: Counter[str] = Counter()
        self.told_bytes = 0
        self._has_read = False
        self._perform: Callable[[Effect, Context], Any] | None = None

    def effect(self, session: Session, effect: Effect, context: Context) -> Any:
        """As Recorder, under a policy that grants the effect if any can."""
        if self.is_full:
            raise EffectFailed(effect.effect_name, "too_large", "the run is more than can be kept for its trials")
        broker = session.broker
        if self._perform is None:
            self._perform, broker.performer = broker.performer, self._answer
        self.grants.include(effect)
        broker.policy = self.grants.policy
        broker.simulated = not self._performs(effect)
        try:
            result = super().effect(session, effect, dataclasses.replace(context, policy=broker.policy))
        except OutcomeError as refusal:
            self.answers.append((effect, refusal))
            raise
        finally:
            self.told_bytes = session.outputs.told_bytes
        self.answers.append((effect, result))
        return result

    def _performs(self, effect: Effect) -> bool:
        careful = self.mode is Mode.CAREFUL and performed_by_default(effect, has_read=self._has_read)
        return careful or self.mode is Mode.PERFORM

    def _answer(self, effect: Effect, context: Context) -> Any:
        if self._performs(effect):
            self._has_read = self._has_read or effect.effect_name in _READING
            return self._performed(effect, context)
        self.simulated[effect.effect_name] += 1
        return simulated(effect, context)

    def _performed(self, effect: Effect, context: Context) -> Any:
        assert self._perform is not None
        if isinstance(self.grants.policy.effects.get(effect.effect_name), StateRule):
            return self._perform(effect, dataclasses.replace(context, policy=self._stateful()))
        context = dataclasses.replace(context, policy=self._public())
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
                context = dataclasses.replace(context, policy=self._public())
        return self._perform(effect, context)

    def _public(self) -> Policy:
        """The policy to perform by: private hosts are learnt, and asked only where everything is to be performed.

        Else a request that was only simulated would open them for a name that leads to one, or a redirect.
        """
        policy = self.grants.policy
        rule = policy.effects.get("HTTPRequest")
        if self.mode is Mode.PERFORM or not isinstance(rule, HTTPRule) or not rule.private_hosts:
            return policy
        public = [text for text in rule.hosts if not targets.host_entry(text).private]
        effects = {name: kept for name, kept in policy.effects.items() if name != "HTTPRequest"}
        if public:
            effects["HTTPRequest"] = dataclasses.replace(rule, hosts=public, private_hosts=False)
        return policy.replaced(effects=effects)

    def _stateful(self) -> Policy:
        """The policy with the directory for state: an effect does not say where state is, so none can be learnt."""
        effects = {
            name: dataclasses.replace(rule, directory=self.state) if isinstance(rule, StateRule) else rule
            for name, rule in self.grants.policy.effects.items()
        }
        return self.grants.policy.replaced(effects=effects)


class Answers:
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
        session.broker.performer, session.broker.simulated = self._answer, True
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
