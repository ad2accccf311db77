"""Rules: what a granted effect may be asked for. `check` is the one question; it is pure and compares exactly.

One kind of rule per family of effects: HTTPRule, UnderRule and its kinds for files, EnvironmentRule, StateRule, CallRule,
and PlainRule for every other, users' own effects included.
A rule is written the same way in TOML and in `to_data`; `true` is the rule of an effect without conditions.

Exactly means: equal text of equal type. Another case, another Unicode form, 1 for True are other values, and denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fxcell.policies.call_rule import CallRule
from fxcell.policies.effects import FX, Effect, UnknownEffectError
from fxcell.policies.environment_rule import EnvironmentRule
from fxcell.policies.errors import EffectDenied, PolicyError
from fxcell.policies.file_rule import FileRule, ListRule
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.names import nearest, short
from fxcell.policies.plain_rule import PlainRule, toml_key
from fxcell.policies.rule import Refusal, Rule
from fxcell.policies.state_rule import StateRule, StateSetRule, check_directories
from fxcell.policies.suggestions import confirmed
from fxcell.policies.targets import HTTPTarget, http_target, is_private_address
from fxcell.policies.under_rule import UnderRule
from fxcell.policies.write_rule import WriteRule

if TYPE_CHECKING:
    from fxcell.policies.policy import Policy

__all__ = [
    "NEVER_GRANTED", "CallRule", "EnvironmentRule", "FileRule", "HTTPRule", "HTTPTarget", "ListRule", "PlainRule", "Refusal",
    "Rule", "StateRule", "StateSetRule", "UnderRule", "WriteRule", "calls_allowed", "check", "check_directories",
    "effect_class", "grant_line", "granted_root", "http_target", "is_private_address", "rule_for", "rule_kind",
]  # fmt: skip

_KINDS: Mapping[str, type[Rule]] = {
    "HTTPRequest": HTTPRule,
    "ReadFile": FileRule,
    "WriteFile": WriteRule,
    "ListDirectory": ListRule,
    "DeleteFile": UnderRule,
    "GetEnvironment": EnvironmentRule,
    "KeyValueGet": StateRule,
    "KeyValueSet": StateSetRule,
    "KeyValueDelete": StateRule,
    "KeyValueList": StateRule,
    "CallPlugin": CallRule,
}


def rule_for(effect: str, given: object) -> Rule:
    """The rule that a policy's `effects` entry stands for: a Rule, a table, or True.

    Raises: PolicyError - the effect can not be granted or does not exist, or the rule is not one for it.
    """
    cls = effect_class(effect)
    kind = rule_kind(effect)
    if isinstance(given, Rule):
        if type(given) is not kind:
            raise PolicyError(
                f"effects.{effect} takes a {kind.__name__}, got {type(given).__name__}", at=("effects", effect)
            )
        given = given.to_data()
    if given is True:
        given = {}
    if not isinstance(given, Mapping):
        raise PolicyError(
            f"effects.{effect} must be true or a table {{ … }}, got {short(given)}", at=("effects", effect)
        )
    return kind.from_data(effect, given).fitted(cls)


NEVER_GRANTED: Mapping[str, str] = dict.fromkeys(
    ("StartWorkerProcess", "SendCommandToWorkerProcess", "StopWorkerProcess", "ListWorkerProcesses"),
    "a worker that commands workers would hold their policies as well; have the host start them, by rules of its own",
) | dict.fromkeys(
    ("InstallPodmanRemote", "BuildZefImageRemote", "RunZefContainerRemote"),
    "it uses the host user's access to other machines",
)
"""Effect -> why no policy can grant it to a worker."""


def effect_class(name: str) -> type[Effect]:
    """The effect class that a policy may grant under this name. Raises PolicyError, saying why not."""
    if name in NEVER_GRANTED:
        raise PolicyError(
            f"the effect {name} can never be granted to a worker: {NEVER_GRANTED[name]}", at=("effects", name)
        )
    try:
        return FX[name]
    except UnknownEffectError:
        known = [known for known in FX if known not in NEVER_GRANTED]
        raise PolicyError(f"there is no effect {short(name)}{nearest(name, known)}", at=("effects", name)) from None


def rule_kind(effect: str) -> type[Rule]:
    """The kind of rule that the effect takes."""
    return _KINDS.get(effect, PlainRule)


def check(policy: Policy, effect: Effect) -> None:
    """Raise EffectDenied unless the policy grants this effect with these fields. Counts are the caller's to keep.

    After: the fields are granted as they stand; names are not resolved and files not opened, which the broker must
           check again (is_private_address for every address, RESOLVE_BENEATH for every path).
    """
    name = effect.effect_name
    rule = policy.effects.get(name)
    if rule is None:
        refusal = _refusal_of_unlisted(effect)
    else:
        judged = rule.judge(effect)
        if judged is None:
            return
        refusal = judged._replace(suggestion=confirmed(effect, rule, judged.suggestion, rule_for))
    raise EffectDenied(name, refusal.field, refusal.rule, policy.name, refusal.suggestion)


def _refusal_of_unlisted(effect: Effect) -> Refusal:
    reason = NEVER_GRANTED.get(effect.effect_name)
    if reason:
        return Refusal(None, reason, "")
    line = grant_line(effect)
    return Refusal(None, "it is not in its list of effects" + ("" if line else ", and no rule grants its fields"), line)


def grant_line(effect: Effect) -> str:
    """The TOML line that would grant this very effect, as narrowly as its kind of rule allows; "" where none can."""
    name = effect.effect_name
    line = f"effects.{toml_key(name)} = {rule_kind(name).narrowest(effect)}"
    return confirmed(effect, None, line, rule_for)


def calls_allowed(policy: Policy, effect: str) -> int:
    """How often one command may ask for the effect: max_calls, at most limits.effects; 0 when it is not granted."""
    rule = policy.effects.get(effect)
    if rule is None:
        return 0
    return policy.limits.effects if rule.max_calls is None else min(rule.max_calls, policy.limits.effects)


def granted_root(policy: Policy, path: str, effect: str = "ReadFile") -> tuple[str, str]:
    """(granted directory, path below it) of a path that `check` has granted; the longest directory wins.

    Raises: EffectDenied - the policy does not grant it.
    """
    rule = policy.effects.get(effect)
    if not isinstance(rule, UnderRule):
        raise EffectDenied(effect, None, "it is not in its list of effects", policy.name, "")
    found = rule.root_of(path)
    if isinstance(found, Refusal):
        raise EffectDenied(effect, found.field, found.rule, policy.name, "")
    return found
