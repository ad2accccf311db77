"""The narrowest rules that grant what a plugin asked for, grown effect by effect.

    effect -> what its kind of rule calls narrowest -> merged with the rule so far -> a policy that grants both

Lists grow, numbers become the larger one, true stays true. What no policy can grant stays out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from fxcell.host.difference_rules import outside
from fxcell.policies import rules
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, PolicyError
from fxcell.policies.plain_rule import DEFAULT_MAXIMA
from fxcell.policies.policy import Policy


class Grants:
    """Rules for what was asked so far.

    base:      a policy without effects; its limits count.
    requested: the only effects that may be granted, as a plugin.toml says; None for all.
    """

    def __init__(self, base: Policy, requested: tuple[str, ...] | None) -> None:
        self.policy = base
        self._requested = requested
        self._tables: dict[str, dict[str, Any]] = {}

    def include(self, effect: Effect) -> bool:
        """Grow until the effect is granted. False, and nothing grown, where no policy can grant it."""
        name = effect.effect_name
        if self._requested is not None and name not in self._requested:
            return False
        return self._grown(name, _narrowest(effect), effect) or self._grown(name, _suggested(effect), effect)

    def follow(self, denied: EffectDenied, effect: Effect) -> bool:
        """Grow by what a denial suggests, as for the host that a redirect leads to. False where that is nothing new."""
        try:
            table = tomllib.loads(denied.suggestion)["effects"][effect.effect_name]
        except (tomllib.TOMLDecodeError, KeyError):
            return False
        before = self.policy
        return self._grown(effect.effect_name, table if isinstance(table, dict) else {}, effect) and self.policy != before

    def _grown(self, name: str, table: Mapping[str, Any], effect: Effect) -> bool:
        merged = _merged(self._tables.get(name, {}), table)
        try:
            policy = self.policy.replaced(effects={**self.policy.effects, name: rules.rule_for(name, merged)})
            rules.check(policy, effect)
        except (PolicyError, EffectDenied):
            return False
        self.policy = policy
        self._tables[name] = merged
        return True


def _narrowest(effect: Effect) -> dict[str, Any]:
    return _as_asked(effect, tomllib.loads(f"rule = {rules.rule_kind(effect.effect_name).narrowest(effect)}")["rule"])


def _suggested(effect: Effect) -> dict[str, Any]:
    """What a denial would have said: wider than the narrowest where that does not grant it, as for a hidden file."""
    line = rules.grant_line(effect)
    return _as_asked(effect, tomllib.loads(line)["effects"][effect.effect_name] if line else {})


def _as_asked(effect: Effect, written: object) -> dict[str, Any]:
    """A written rule as a table, with the method and the amounts that this effect asked for."""
    name = effect.effect_name
    table: dict[str, Any] = dict(written) if isinstance(written, dict) else {}
    if name == "HTTPRequest":
        table["methods"] = [effect.method]  # type: ignore[attr-defined]
    for field in DEFAULT_MAXIMA.get(name, {}):
        table[f"max_{field}"] = getattr(effect, field)
    return table


def _merged(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in two.items():
        merged[key] = _both(merged[key], value) if key in merged else value
        if key == "under":
            merged[key] = sorted(outside(merged[key], ()))
    return merged


def _both(one: Any, two: Any) -> Any:
    if isinstance(one, list) and isinstance(two, list):
        return one + [item for item in two if item not in one]
    if isinstance(one, bool) and isinstance(two, bool):
        return one or two
    if isinstance(one, int | float) and isinstance(two, int | float):
        return max(one, two)
    return two
