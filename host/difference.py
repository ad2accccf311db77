"""What one policy allows that another does not, as data: the logic of `fxcell policy diff`. Nothing is started.

    difference(a, b) -> isolation, words, visible, preload, limits, then effect by effect (difference_rules.py)

Policies are compared by what they grant, never by how they are written: a host that "*.example.com" covers is no news, and
neither is a folder below one that is granted. The answer is empty exactly when the digests are equal: what differs in
writing alone is said to be that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fxcell.host import difference_rules
from fxcell.host.difference_changes import Change, Side, unjudged
from fxcell.policies.policy import Isolation, Policy
from fxcell.policies.toml_text import bytes_text, rule_text
from fxcell.policies.words import WORDS
from fxcell.sandbox import syscalls

__all__ = ["Change", "Side", "difference", "told"]

_RANK = {Isolation.FULL: 0, Isolation.UNPRIVILEGED: 1, Isolation.TRUSTED: 2}
_ISOLATION = {
    Isolation.FULL: "every layer, or no worker",
    Isolation.UNPRIVILEGED: "a worker without namespaces and minimal root, where the machine has none",
    Isolation.TRUSTED: "no sandbox: every system call, and every file and host that the host's user can reach",
}


def difference(a: Policy, b: Policy) -> tuple[Change, ...]:
    """Every way in which the policies differ, in the order of a policy's keys; () exactly for equal digests."""
    if a.digest == b.digest:
        return ()
    found = [*_isolation(a, b), *_words(a, b), *_visible(a, b), *_preload(a, b), *_limits(a, b), *_effects(a, b)]
    # Kept whatever the parts above may miss of a key that comes later: a difference is never told as none.
    return tuple(found) or tuple(unjudged("policy", f"digest {a.digest[:12]}", f"digest {b.digest[:12]}"))


def told(a: Policy, b: Policy) -> dict[str, Any]:
    """The difference as plain data, for --json."""
    changes = difference(a, b)
    return {
        "a": {"policy": a.name, "digest": a.digest},
        "b": {"policy": b.name, "digest": b.digest},
        "same": not changes,
        "changes": [{"more": change.side.value, "at": change.at, "text": change.text} for change in changes],
    }


def _isolation(a: Policy, b: Policy) -> Iterator[Change]:
    if a.isolation is not b.isolation:
        side = Side.B if _RANK[b.isolation] > _RANK[a.isolation] else Side.A
        yield Change(side, "isolation", _ISOLATION[b.isolation if side is Side.B else a.isolation])


def _sandboxed(a: Policy, b: Policy) -> bool:
    # Beside a policy without a sandbox no word and no visible folder is anything that the other has not.
    return Isolation.TRUSTED not in (a.isolation, b.isolation)


def _words(a: Policy, b: Policy) -> Iterator[Change]:
    if not _sandboxed(a, b):
        return
    for side, more, less in ((Side.B, b.allow, a.allow), (Side.A, a.allow, b.allow)):
        for word in sorted(more - less):
            calls = _calls(less, word)
            yield Change(side, f"allow: {word}", f"{WORDS[word]} {calls}")


def _calls(less: frozenset[str], word: str) -> str:
    """The system calls that the word alone brings to the kernel where the rest is as in `less`."""
    before, after = _rows(less), _rows(less | {word})
    new = sorted({row.name for row in after} - {row.name for row in before})
    wider = sorted({row.name for row in set(after) - set(before)} & {row.name for row in before})
    unconditional = {row.name for row in before if not row.when}
    wider = [name for name in wider if name not in unconditional]
    parts = [f"System calls: {' '.join(new)}."] if new else []
    if wider:
        parts.append(f"With further arguments: {' '.join(wider)}.")
    return " ".join(parts) or "No system call that is not reachable already."


def _rows(words: frozenset[str]) -> tuple[syscalls.Allow, ...]:
    return syscalls.allowed(words)


def _visible(a: Policy, b: Policy) -> Iterator[Change]:
    if not _sandboxed(a, b) or set(a.visible) == set(b.visible):
        return
    found = []
    for side, more, less in ((Side.B, b.visible, a.visible), (Side.A, a.visible, b.visible)):
        found += [
            Change(side, "visible", f"the worker itself reads {path} and everything below it")
            for path in difference_rules.outside(more, less)
        ]
    yield from found or [Change(Side.SAME, "visible", f"{list(a.visible)} and {list(b.visible)} show the same files")]


def _preload(a: Policy, b: Policy) -> Iterator[Change]:
    if a.preload == b.preload:
        return
    for side, more, less in ((Side.B, b.preload, a.preload), (Side.A, a.preload, b.preload)):
        for module in more:
            if module not in less:
                text = f"{module} is imported beforehand, outside the sandbox, with whatever its code does there"
                yield Change(side, "preload", text)
    if sorted(a.preload) == sorted(b.preload):
        text = f"imported in another order: {', '.join(a.preload)} in A, {', '.join(b.preload)} in B"
        yield Change(Side.OTHER, "preload", text)


def _limits(a: Policy, b: Policy) -> Iterator[Change]:
    before, after = a.limits.to_data(), b.limits.to_data()
    for name, value in before.items():
        if after[name] != value:
            side = Side.B if after[name] > value else Side.A
            high, low = max(value, after[name]), min(value, after[name])
            plain = name.removesuffix("_bytes").removesuffix("_s")
            yield Change(side, f"limits.{plain}", f"{_quantity(name, high)}; the other {_quantity(name, low)}")


def _quantity(name: str, value: float) -> str:
    return bytes_text(int(value)) if name.endswith("_bytes") else f"{value:g} s" if name.endswith("_s") else f"{value:,}"


def _effects(a: Policy, b: Policy) -> Iterator[Change]:
    for name in sorted({*a.effects, *b.effects}):
        before, after = a.effects.get(name), b.effects.get(name)
        if before is None or after is None:
            side, rule = (Side.B, after) if before is None else (Side.A, before)
            assert rule is not None
            shown = rule_text(rule.to_data())
            yield Change(side, f"effects.{name}", "the effect as such" + ("" if shown == "true" else f", as {shown}"))
        elif before != after:
            yield from difference_rules.rules_differ(name, before, after, (a.limits.effects, b.limits.effects))
