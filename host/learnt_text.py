"""A learnt policy as TOML: one line for each thing that it needs, and beside it what happened without."""

from __future__ import annotations

from collections import Counter

from fxcell.host.effects.basic import visible
from fxcell.host.learning import Learnt
from fxcell.host.wide_grants import wide_grants
from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import TOML_KEYS, Limits
from fxcell.policies.rule import Rule
from fxcell.policies.rules import rule_for
from fxcell.policies.state_rule import StateRule
from fxcell.policies.toml_text import limit_text, rule_text

_MAX_REASON_CHARACTERS = 160
_PLACEHOLDER = (
    "; the directory is a PLACEHOLDER, for a plugin does not say where its state is kept: name one that exists, "
    "that the host's user owns and nobody else may write to"
)


def learnt_text(learnt: Learnt, made_by: str) -> str:
    """The policy, which loads to the same digest as `learnt.policy`. Before: there is one.

    made_by: what was learnt from, for the first line.
    """
    policy = learnt.policy
    assert policy is not None
    lines = [_comment(f"learnt from {made_by}: the least under which it does the same again")]
    if learnt.simulated:
        names = ", ".join(f"{name} ({_times(learnt.simulated, name)})" for name in sorted(learnt.simulated))
        lines.append(_comment(f"simulated, so what a real answer leads to was not seen: {names}"))
    if not learnt.same:
        lines.append(_comment("it answers another value each time, so a trial passed with any value"))
    if policy.allow:
        lines += ["allow = ["]
        lines += [f'    "{word}",{_beside(learnt, f"allow.{word}")}' for word in sorted(policy.allow)]
        lines += ["]"]
    limits, plain = policy.limits.to_data(), Limits().to_data()
    needed = {key: name for key, name in TOML_KEYS.items() if limits[name] != plain[name]}
    if needed:
        lines += ["", "[limits]"]
        lines += [f"{key} = {limit_text(name, limits[name])}{_beside(learnt, f'limits.{name}')}" for key, name in needed.items()]
    if policy.effects:
        lines += ["", "[effects]"]
    for name, rule in policy.effects.items():
        beside = _times(learnt.asked, name) + _without(learnt, f"effects.{name}")
        if isinstance(rule, StateRule):
            beside += _PLACEHOLDER
        lines.append(f"{name} = {_short(name, rule)}  # {beside}")
    for name, rule in learnt.left_out.items():
        text = f"left out, because the plugin answers the same without it: {name} = {_short(name, rule)}"
        lines.append(_comment(f"{text}, asked for {_times(learnt.asked, name)}"))
    lines += [_comment(f"warning, {at}: {text}") for at, text in wide_grants(policy)]
    return "\n".join(lines) + "\n"


def _short(name: str, rule: Rule) -> str:
    """The rule without the keys that say what holds anyway."""
    table = rule.to_data()
    for key in list(table):
        less = {other: value for other, value in table.items() if other != key}
        try:
            if rule_for(name, less) == rule:
                table = less
        except PolicyError:
            continue  # a key that the rule cannot be without
    return rule_text(table)


def _times(counted: Counter[str], name: str) -> str:
    return "once" if counted[name] == 1 else f"{counted[name]:,} times"


def _beside(learnt: Learnt, line: str) -> str:
    reason = _without(learnt, line).removeprefix("; ")
    return f"  # {reason}" if reason else ""


def _without(learnt: Learnt, line: str) -> str:
    """The reason, which can quote the plugin: cut, and one visible line."""
    reason = learnt.reasons.get(line, "")
    needed = line.startswith("limits.")
    text = visible(" ".join(reason.split())[:_MAX_REASON_CHARACTERS])
    return "" if not reason else f"; {text}" if needed else f"; without it {text}"


def _comment(text: str) -> str:
    return f"# {visible(text)}"
