"""What one rule of an effect grants that another of the same effect does not.

    rules_differ(effect, a, b) -> the changes that its kind of rule has words for, then key by key what these did not cover

A kind of rule without words of its own, or a key that this version does not know, is still compared: numbers that are
bounds by their name (max_…) by size; of everything else both sides are said to allow what may be more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fxcell.host import difference_requests
from fxcell.host.difference_changes import Change, Side, asking, pace, sides, unjudged
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.plain_rule import PlainRule
from fxcell.policies.rule import Rule
from fxcell.policies.toml_text import bytes_text, rule_text
from fxcell.policies.write_rule import WriteRule


class _Words(NamedTuple):
    """What one kind of rule has to say, and the keys of its table that this accounts for, also where nothing is said."""

    keys: frozenset[str]
    say: Callable[[str, Any, Any], Iterator[Change]]


def rules_differ(effect: str, a: Rule, b: Rule, budgets: tuple[int, int]) -> list[Change]:
    """The changes between two rules of one effect; never empty for rules that are not equal.

    budgets: limits.effects of both policies, what max_calls is where a rule names none.
    """
    at = f"effects.{effect}"
    before, after = a.to_data(), b.to_data()
    found = [*pace(at, a, b), *asking(at, a, b)]
    words = _KINDS.get(type(a)) if type(a) is type(b) else None
    if words is not None:
        found += words.say(at, a, b)
    for key in sorted({*before, *after}):
        if before.get(key) == after.get(key) and type(before.get(key)) is type(after.get(key)):
            continue
        if key == "max_calls":
            found += _calls(at, before.get(key), after.get(key), budgets)
        elif key not in _ON_THE_RULE and (words is None or not _is_covered(key, words, (a, b))):
            found += _key(f"{at}.{key}", key, before.get(key), after.get(key))
    if not found:
        found = [Change(Side.SAME, at, f"{rule_text(before)} and {rule_text(after)} grant the same")]
    return found


def outside(directories: Iterable[str], granted: Sequence[str]) -> list[str]:
    """Those of the directories that are neither granted nor below one that is; one below another of them is left out."""
    left = [path for path in directories if not _is_below(path, granted)]
    return [path for path in left if not _is_below(path, [other for other in left if other != path])]


def _is_below(path: str, directories: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{one}/") for one in directories)


def _is_covered(key: str, words: _Words, pair: Iterable[Rule]) -> bool:
    if key in words.keys:
        return True
    # The keys of a PlainRule's table are those of the effect's fields.
    plain = [rule for rule in pair if isinstance(rule, PlainRule)]
    return any(key in rule.allowed or key.removeprefix("max_") in rule.maxima for rule in plain)


# --- keys of any rule


def _calls(at: str, before: int | None, after: int | None, budgets: tuple[int, int]) -> Iterator[Change]:
    counts = [budget if count is None else min(count, budget) for count, budget in zip((before, after), budgets, strict=True)]
    if counts[0] == counts[1]:
        yield Change(Side.SAME, f"{at}.max_calls", f"{before or 'none'} and {after or 'none'}: {counts[0]:,} either way")
        return
    side = Side.B if counts[1] > counts[0] else Side.A
    yield Change(side, f"{at}.max_calls", f"{max(counts):,} in one command; the other {min(counts):,}")


def _key(at: str, key: str, before: object, after: object) -> Iterator[Change]:
    """A key that no kind of rule accounts for."""
    bound = key.startswith("max_") or key == "quota_bytes"
    words = _KEYS.get(key)
    if words is not None and (found := list(words(at, before, after))):
        yield from found
    elif bound and (before is None or after is None):
        side, value = (Side.B, before) if after is None else (Side.A, after)
        yield Change(side, at, f"without a bound; the other at most {value}")
    elif bound and _is_number(before) and _is_number(after):
        yield from _number(at, key, before, after)
    else:
        yield from unjudged(at, _shown(before), _shown(after))


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _number(at: str, key: str, before: Any, after: Any) -> Iterator[Change]:
    if before != after:
        side = Side.B if after > before else Side.A
        high, low = max(before, after), min(before, after)
        yield Change(side, at, f"up to {_size(key, high)}; the other up to {_size(key, low)}")
    else:
        yield Change(Side.SAME, at, f"{before!r} and {after!r} are the same bound")


def _size(key: str, value: float) -> str:
    return bytes_text(int(value)) if key.endswith("_bytes") else f"{value:,}"


def _shown(value: object) -> str:
    return "nothing" if value is None else rule_text({"v": value}).removeprefix("{ v = ").removesuffix(" }")


def _directories(at: str, before: Any, after: Any) -> Iterator[Change]:
    if not (_is_texts(before) and _is_texts(after)):
        return
    found = [
        Change(side, at, f"what is below {path}") for side, more, less in sides(before, after) for path in outside(more, less)
    ]
    yield from found or [Change(Side.SAME, at, f"{_shown(before)} and {_shown(after)} are the same files")]


def _listed_texts(at: str, before: Any, after: Any) -> Iterator[Change]:
    if _is_texts(before) and _is_texts(after):
        for side, more, less in sides(before, after):
            new = [repr(text) for text in more if text not in less]
            if new:
                yield Change(side, at, ", ".join(new))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _opening(at: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, bool) and isinstance(after, bool):
        yield Change(Side.B if after else Side.A, at, "granted as well")


_ON_THE_RULE = frozenset({"rate", "burst", "ask"})
"""Keys judged together and by the rule's own attributes: a field of the effect may be called so as well."""

_KEYS: Mapping[str, Callable[[str, Any, Any], Iterator[Change]]] = {
    "under": _directories, "names": _listed_texts, "modes": _listed_texts, "plugins": _listed_texts,
    "create_parents": _opening, "hidden": _opening,
}  # fmt: skip
"""Keys that mean the same in every kind of rule that has them."""


# --- kinds


def _plain(at: str, a: PlainRule, b: PlainRule) -> Iterator[Change]:
    for field in sorted({*a.allowed, *a.maxima, *b.allowed, *b.maxima}):
        yield from _field(f"{at}.{field}", field, a, b)


def _field(at: str, field: str, a: PlainRule, b: PlainRule) -> Iterator[Change]:
    """What one field may be: one of a list, or any number up to a bound, or anything."""
    for side, more, less in sides(a, b):
        listed, bound, other_bound = _listed(more, field), more.maxima.get(field), less.maxima.get(field)
        other = _listed(less, field)
        if listed is not None:
            values = [value for key, value in listed.items() if not _grants(key, value, other, other_bound)]
            if values:
                yield Change(side, at, f"the value{'s' * (len(values) > 1)} {', '.join(map(repr, values))}")
        elif other is not None:
            rest = "any value" if bound is None else f"any number from 0 to {bound}"
            yield Change(side, at, f"{rest}; the other only {', '.join(map(repr, other.values())) or 'nothing'}")
        elif other_bound is not None and (bound is None or bound > other_bound):
            text = "any number" if bound is None else f"numbers up to {bound}"
            yield Change(side, at, f"{text}; the other numbers from 0 to {other_bound}")


def _quotas(at: str, a: WriteRule, b: WriteRule) -> Iterator[Change]:
    """The quota is each directory's own: one more directory can hold as much again, also below what the other grants."""
    for side, more, less in sides(a, b):
        for path in more.under:
            if path not in less.under and _is_below(path, less.under):
                yield Change(side, f"{at}.under", f"a quota of its own for {path}")


_Key = tuple[type, Any]


def _listed(rule: PlainRule, field: str) -> dict[_Key, Any] | None:
    """The listed values that the rule's own bound lets through, by type and value; None without a list."""
    if field not in rule.allowed:
        return None
    bound = rule.maxima.get(field)
    return {(type(value), value): value for value in rule.allowed[field] if bound is None or 0 <= value <= bound}


def _grants(key: _Key, value: Any, listed: Mapping[_Key, Any] | None, bound: float | None) -> bool:
    return key in listed if listed is not None else bound is None or 0 <= value <= bound


_KINDS: Mapping[type[Rule], _Words] = {
    HTTPRule: _Words(difference_requests.KEYS, difference_requests.requests),
    PlainRule: _Words(frozenset(), _plain),
    WriteRule: _Words(frozenset(), _quotas),
}
"""Kinds of rules with words of their own; any other is compared key by key."""
