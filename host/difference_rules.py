"""What one rule of an effect grants that another of the same effect does not.

    rules_differ(effect, a, b) -> the changes that its kind of rule has words for, then key by key what these did not cover

A kind of rule without words of its own, or a key that this version does not know, is still compared: numbers that are
bounds by their name (max_…, …_bytes, …_s) by size, everything else as different without a claim which one allows more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.plain_rule import PlainRule
from fxcell.policies.rates import parse_rate
from fxcell.policies.rule import Rule
from fxcell.policies.targets import DEFAULT_PORTS, HostEntry, host_entry
from fxcell.policies.toml_text import bytes_text, rule_text


class Side(StrEnum):
    """Whose policy allows more by a change.

    OTHER: they differ, and which of them allows more cannot be told.      SAME: they differ in writing, and allow the same.
    """

    A = "a"
    B = "b"
    OTHER = "other"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. at: the key, such as "effects.HTTPRequest.hosts"; text: what that side allows, in words."""

    side: Side
    at: str
    text: str


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
    found: list[Change] = []
    words = _KINDS.get(type(a)) if type(a) is type(b) else None
    if words is not None:
        found += words.say(at, a, b)
    found += _rates(at, before, after)
    for key in sorted({*before, *after} - {"rate", "burst"}):
        if before.get(key) == after.get(key) and type(before.get(key)) is type(after.get(key)):
            continue
        if key == "max_calls":
            found += _calls(at, before.get(key), after.get(key), budgets)
        elif words is None or not _is_covered(key, words, (a, b)):
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
    bound = key.startswith("max_") or key.endswith(("_bytes", "_s"))
    words = _KEYS.get(key)
    if words is not None and (found := list(words(at, before, after))):
        yield from found
    elif bound and key.startswith("max_") and (before is None or after is None):
        side, value = (Side.B, before) if after is None else (Side.A, after)
        yield Change(side, at, f"without a bound; the other at most {value}")
    elif bound and _is_number(before) and _is_number(after):
        yield from _number(at, key, before, after)
    else:
        yield Change(Side.OTHER, at, f"{_shown(before)} in A, {_shown(after)} in B")


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
        Change(side, at, f"what is below {path}") for side, more, less in _sides(before, after) for path in outside(more, less)
    ]
    yield from found or [Change(Side.SAME, at, f"{_shown(before)} and {_shown(after)} are the same files")]


def _listed_texts(at: str, before: Any, after: Any) -> Iterator[Change]:
    before, after = before or [], after or []
    if _is_texts(before) and _is_texts(after):
        for side, more, less in _sides(before, after):
            new = [repr(text) for text in more if text not in less]
            if new:
                yield Change(side, at, ", ".join(new))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _opening(at: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, bool) and isinstance(after, bool):
        yield Change(Side.B if after else Side.A, at, "granted as well")


def _asking(at: str, before: Any, after: Any) -> Iterator[Change]:
    if bool(before) is not bool(after):
        yield Change(Side.A if after else Side.B, at, "without asking anybody; for the other somebody must agree to each")


def _rates(at: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """What rate and burst, which follows from the rate where it is not written, allow together: over time, and at once."""
    if (before.get("rate"), before.get("burst")) == (after.get("rate"), after.get("burst")):
        return
    told = [_told_rate(data) for data in (before, after)]
    shown = ["as fast as it likes" if data.get("rate") is None else f"{data['rate']}" for data in (before, after)]
    found = []
    for index, key in enumerate(("rate", "burst")):
        low, high = told[0][index], told[1][index]
        if low == high or (key == "burst" and math.inf in (low, high)):
            continue  # without a rate there is no burst either, and the rate's line says so
        side = Side.B if high > low else Side.A
        words = shown if key == "rate" else [f"{count:,.0f} at once" for count in (low, high)]
        found.append(Change(side, f"{at}.{key}", f"{words[high > low]}; the other {words[high <= low]}"))
    yield from found or [Change(Side.SAME, f"{at}.rate", f"{shown[0]} and {shown[1]}, with the same burst")]


def _told_rate(data: Mapping[str, Any]) -> tuple[float, float]:
    """Calls per second, and how many at once."""
    if data.get("rate") is None:
        return math.inf, math.inf
    rate = parse_rate(data["rate"])
    burst = data.get("burst")
    return rate.per_second, float(rate.number if burst is None else burst)


def _secrets(at: str, before: Any, after: Any) -> Iterator[Change]:
    for side, more, less in _sides(before or {}, after or {}):
        for name in sorted(name for name in more if more[name] != less.get(name)):
            yield Change(side, f"{at}.{name}", f"the host fills it with {more[name]}")


_KEYS: Mapping[str, Callable[[str, Any, Any], Iterator[Change]]] = {
    "under": _directories, "names": _listed_texts, "modes": _listed_texts, "plugins": _listed_texts,
    "create_parents": _opening, "hidden": _opening, "ask": _asking, "secrets": _secrets, "secret_hosts": _listed_texts,
}  # fmt: skip
"""Keys that mean the same in every kind of rule that has them."""


# --- kinds


def _sides(a: Any, b: Any) -> tuple[tuple[Side, Any, Any], ...]:
    return (Side.B, b, a), (Side.A, a, b)


def _requests(at: str, a: HTTPRule, b: HTTPRule) -> Iterator[Change]:
    for side, more, less in _sides(a, b):
        for text in more.hosts:
            entry = host_entry(text)
            ports = _ports(entry, more) - _ports_granted(entry, less)
            if ports:
                yield Change(side, f"{at}.hosts", f"requests to {_host_words(entry, more)}, {_port_words(ports)}")
        if more.private_hosts and not less.private_hosts:
            text = "addresses that are loopback, private or link-local, as far as its hosts cover them"
            yield Change(side, f"{at}.private_hosts", text)
        methods = sorted(set(more.methods) - set(less.methods))
        if methods:
            yield Change(side, f"{at}.methods", f"the method{'s' * (len(methods) > 1)} {', '.join(methods)}")
    if a.max_body_bytes != b.max_body_bytes:
        yield from _number(f"{at}.max_body_bytes", "max_body_bytes", a.max_body_bytes, b.max_body_bytes)


_Ports = frozenset[tuple[str, int]]
"""(scheme, port) pairs."""


def _ports(entry: HostEntry, rule: HTTPRule) -> _Ports:
    if entry.port is None and not rule.ports:
        return frozenset(DEFAULT_PORTS.items())
    numbers = rule.ports if entry.port is None else [entry.port]
    return frozenset((scheme, number) for scheme in DEFAULT_PORTS for number in numbers)


def _ports_granted(entry: HostEntry, rule: HTTPRule) -> _Ports:
    """At which ports the rule grants every host that the entry covers."""
    if entry.private and not rule.private_hosts:
        return frozenset()
    covering = [other for other in map(host_entry, rule.hosts) if _contains(other.pattern, entry)]
    return frozenset().union(*(_ports(other, rule) for other in covering))


def _contains(pattern: str, entry: HostEntry) -> bool:
    if pattern in ("*", entry.pattern):
        return True
    if entry.pattern.startswith("*"):  # "*" has no other pattern around it; "*.a.b" is in "*.b"
        return pattern.startswith("*.") and entry.pattern.endswith(pattern[1:])
    return HostEntry(pattern, None).covers(entry.pattern)


def _host_words(entry: HostEntry, rule: HTTPRule) -> str:
    if entry.pattern == "*":
        return "every host" if rule.private_hosts else "every public host"
    return f"every host below {entry.pattern[2:]}" if entry.pattern.startswith("*.") else entry.pattern


def _port_words(ports: _Ports) -> str:
    if ports == frozenset(DEFAULT_PORTS.items()):
        return "http at port 80 and https at port 443"
    both = sorted({port for scheme, port in ports if {("http", port), ("https", port)} <= ports})
    words = [f"port {port}" for port in both]
    words += [f"{scheme} at port {port}" for scheme, port in sorted(ports) if port not in both]
    return ", ".join(words)


def _plain(at: str, a: PlainRule, b: PlainRule) -> Iterator[Change]:
    for field in sorted({*a.allowed, *a.maxima, *b.allowed, *b.maxima}):
        yield from _field(f"{at}.{field}", field, a, b)


def _field(at: str, field: str, a: PlainRule, b: PlainRule) -> Iterator[Change]:
    """What one field may be: one of a list, or any number up to a bound, or anything."""
    for side, more, less in _sides(a, b):
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
    HTTPRule: _Words(frozenset({"hosts", "methods", "ports", "max_body_bytes", "private_hosts"}), _requests),
    PlainRule: _Words(frozenset(), _plain),
}
"""Kinds of rules with words of their own; any other is compared key by key."""
