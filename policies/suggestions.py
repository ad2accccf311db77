"""Suggestions of a denial: offered only when the line, pasted, makes a rule that grants the very effect.

    refusal's line -> read as TOML -> merged into the rule -> built -> judged -> offered, or the next refusal's line added

A line that the loader refuses, or that would lead to a second refusal that no line can lift, is not offered at all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.plain_rule import toml_key
from fxcell.policies.rule import Rule

_ROUNDS = 8
"""Fields that one effect may have to widen, at most: no rule judges more."""
_MAX_CHARACTERS = 16 * 1024
"""Longest line that is offered: two paths of PATH_MAX, escaped."""


def confirmed(effect: Effect, rule: Rule | None, line: str, build: Callable[[str, object], Rule]) -> str:
    """The line that, added to the policy, grants this effect; "" where there is none.

    rule:  what the policy has for the effect now, or None.
    line:  the first refusal's. Where lifting one refusal leads to the next, the answer is the whole rule on one line.
    build: (effect's name, value) -> the rule, or PolicyError; that is rules.rule_for.
    """
    name, first, whole = effect.effect_name, line, False
    for _ in range(_ROUNDS):
        # Of a rule that is there already, one key may be replaced; a table would take the place of all of them.
        whole = whole or (rule is not None and line.startswith(f"effects.{toml_key(name)} = {{"))
        widened = _with_line(name, rule, line, build)
        if widened is None:
            return ""
        refusal = widened.judge(effect)
        if refusal is None:
            offered = _whole_rule(name, widened) if whole else first
            return offered if len(offered) <= _MAX_CHARACTERS else ""
        rule, line, whole = widened, refusal.suggestion, True
    return ""


def _whole_rule(name: str, rule: Rule) -> str:
    from fxcell.policies.toml_text import rule_text  # it knows policies, which know the rules

    return f"effects.{toml_key(name)} = {rule_text(rule.to_data())}"


def _with_line(name: str, rule: Rule | None, line: str, build: Callable[[str, object], Rule]) -> Rule | None:
    """The rule after a line was added to its policy, or None when the line cannot be added."""
    if not line:
        return None
    try:
        given: Any = tomllib.loads(line)["effects"][name]
        if isinstance(given, Mapping) and rule is not None:
            given = {**rule.to_data(), **given}
        return build(name, given)
    except (PolicyError, ValueError, KeyError, TypeError, RecursionError):
        return None
