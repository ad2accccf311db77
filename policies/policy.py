"""Policy: everything one kind of worker may do, as one frozen value with a digest.

Policies start from nothing: no effect, no word, no file. What they name is checked here; what the words mean to the
kernel is in fxcell.sandbox, what the effects' rules mean in fxcell.policies.rules.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import Limits
from fxcell.policies.names import nearest, short
from fxcell.policies.paths import check_directory
from fxcell.policies.rates import parse_rate
from fxcell.policies.rule import Rule, texts
from fxcell.policies.words import NEVER, WORDS

_canonical = msgspec.msgpack.Encoder(order="deterministic").encode
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


class Isolation(StrEnum):
    """How much stands between a worker and the machine.

    FULL:         every layer; one that the machine lacks is IsolationUnavailable.
    UNPRIVILEGED: at least seccomp, Landlock, limits and privileges: what is left where user namespaces are denied, as in a
                  default container. Where the machine has them they are used all the same: this names the weakest tier
                  that the policy accepts. Without them a worker can see which paths and processes exist, not open them.
    TRUSTED:      crash containment only: a process of its own with resource limits. It does not stop code that means harm.
    """

    FULL = "full"
    UNPRIVILEGED = "unprivileged"
    TRUSTED = "trusted"


@dataclass(frozen=True, eq=False)
class Policy:
    """What a worker may do. Raises PolicyError for anything unknown, never grantable, or without effect.

    name:      for people; no part of the digest, as is description.
    effects:   effect name -> Rule (True and a table of the rule's keys are accepted). Read-only afterwards.
    allow:     words of fxcell.policies.words.
    visible:   absolute directories that the worker itself may read; real paths, for Landlock sees no links.
    preload:   modules that the template imports, in this order, before any lockdown. They are trusted, and one that is
               missing is an error at start.
    """

    name: str = "unnamed"
    isolation: Isolation = Isolation.FULL
    limits: Limits = field(default_factory=Limits)
    effects: Mapping[str, Rule] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    visible: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        for label in ("name", "description"):
            if type(getattr(self, label)) is not str:
                raise PolicyError(f"{label} must be a text, got {short(getattr(self, label))}", at=(label,))
        if not isinstance(self.limits, Limits):
            raise PolicyError(f"limits must be a Limits, got {type(self.limits).__name__}")
        kept = {
            "isolation": _isolation(self.isolation),
            "effects": _effects(self.effects),
            "allow": _words(self.allow),
            "visible": _visible(self.visible),
            "preload": _preload(self.preload),
        }
        for key, value in kept.items():
            object.__setattr__(self, key, value)
        self._refuse_without_effect()

    def _refuse_without_effect(self) -> None:
        limits, words = self.limits, self.allow
        if self.isolation is Isolation.TRUSTED and (self.allow or self.visible):
            what = "allow" if self.allow else "visible"
            text = f'{what} is without effect with isolation = "trusted", which denies nothing; write {what} = []'
            raise PolicyError(text, at=(what,))
        without_effect = {
            'allow = ["scratch"] while limits.scratch is 0; write limits.scratch = "64 MiB"': (
                "scratch" in words and not limits.scratch_bytes, "allow"),
            'limits.scratch over 0 without the word "scratch" in allow': (
                "scratch" not in words and limits.scratch_bytes > 0, "limits.scratch"),
            'allow = ["processes"] while limits.processes is 1, the worker itself': (
                "processes" in words and limits.processes == 1, "allow"),
            'limits.processes over 1 without the word "processes" in allow': (
                "processes" not in words and limits.processes > 1, "limits.processes"),
            'allow = ["threads"] while limits.threads is 0': (
                "threads" in words and limits.threads == 0, "allow"),
        }  # fmt: skip
        for what, (found, key) in without_effect.items():
            if found:
                raise PolicyError(f"without effect: {what}", at=tuple(key.split(".")))
        for name, rule in self.effects.items():
            self._refuse_unreachable(name, rule)

    def _refuse_unreachable(self, name: str, rule: Rule) -> None:
        """Refuse a rule that lets more effects through at once than limits.effects lets any command have."""
        if rule.rate is None:
            return
        key, number = ("rate", parse_rate(rule.rate).number) if rule.burst is None else ("burst", rule.burst)
        if number > self.limits.effects:
            text = f"effects.{name}.{key} lets {number} through at once, limits.effects = {self.limits.effects} fewer"
            raise PolicyError(f"without effect: {text}; lower the one or raise the other", at=("effects", name, key))

    def _shown(self) -> tuple[str, list[tuple[str, Any]], str]:
        return "<Policy ", [("", self.name)], ">"

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of what the policy allows: the same in every process, for every order of keys."""
        data = self.to_data()
        del data["name"], data["description"]
        return hashlib.sha256(_canonical(data)).hexdigest()

    def to_data(self) -> dict[str, Any]:
        """The policy as plain data; `from_data` reads it back without loss."""
        return {
            "name": self.name,
            "description": self.description,
            "isolation": self.isolation.value,
            "limits": self.limits.to_data(),
            "effects": {name: rule.to_data() for name, rule in self.effects.items()},
            "allow": sorted(self.allow),
            "visible": list(self.visible),
            "preload": list(self.preload),
        }

    @classmethod
    def from_data(cls, data: object) -> Policy:
        """Read back `to_data`; a key that is missing has its default. Raises PolicyError as the constructor."""
        if not isinstance(data, Mapping):
            raise PolicyError(f"a policy must be a table, got {type(data).__name__}")
        known = [item.name for item in dataclasses.fields(cls)]
        for key in data:
            if key not in known:
                raise PolicyError(f"a policy has no key {short(key)}{nearest(key, known)}")
        parts = dict(data)
        if "limits" in parts:
            parts["limits"] = Limits.from_data(parts["limits"])
        return cls(**parts)

    def replaced(self, **changes: Any) -> Policy:
        """A copy with these fields changed, validated again. `limits` and `effects` replace the whole."""
        return dataclasses.replace(self, **changes)

    def worker_part(self) -> Policy:
        """The policy without its effects: what a worker's side needs to know. The host alone judges effects."""
        return self.replaced(effects={})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return (self.digest, self.name, self.description) == (other.digest, other.name, other.description)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Policy.from_data, (self.to_data(),))


def _isolation(given: object) -> Isolation:
    if not isinstance(given, str) or given not in [level.value for level in Isolation]:
        raise PolicyError(f'isolation must be "full", "unprivileged" or "trusted", got {short(given)}', at=("isolation",))
    return Isolation(given)


def _effects(given: object) -> Mapping[str, Rule]:
    if not isinstance(given, Mapping):
        raise PolicyError(f"effects must be a table, got {type(given).__name__}", at=("effects",))
    for name in given:
        if type(name) is not str:
            raise PolicyError(f"effects must be named by texts, got {short(name)}", at=("effects",))
    if not given:
        return MappingProxyType({})
    from fxcell.policies import rules  # the worker's side has policies without effects, and no use for rules

    effects = {name: rules.rule_for(name, given[name]) for name in sorted(given)}
    rules.check_directories(effects)
    return MappingProxyType(effects)


def _words(given: Iterable[str]) -> frozenset[str]:
    words = texts("allow", given, '["threads"]')
    for word in words:
        check_word(word)
    return frozenset(words)


def check_word(word: str) -> None:
    """Raise PolicyError for a word that does not exist or can never be granted."""
    if word in NEVER:
        raise PolicyError(f"allow: {word!r} can never be granted: {NEVER[word]}", at=("allow",))
    if word not in WORDS:
        raise PolicyError(f"allow: there is no word {short(word)}{nearest(word, WORDS)}", at=("allow",))


def _visible(given: object) -> tuple[str, ...]:
    directories = texts("visible", given, '["/srv/data"]')
    for directory in directories:
        check_directory("visible", directory)
    return directories


def _preload(given: object) -> tuple[str, ...]:
    unique = texts("preload", given, '["numpy"]')
    for module in unique:
        if not _MODULE.fullmatch(module):
            raise PolicyError(f"preload: {short(module)} is not the dotted name of a module", at=("preload",))
        if module.partition(".")[0] in ("__main__", "fxcell"):
            raise PolicyError(
                f"preload: {module!r} cannot be named: the template chooses these itself", at=("preload",)
            )
    if not isinstance(given, list | tuple):
        raise PolicyError("preload must be a list: its order counts", at=("preload",))
    return tuple(given)
