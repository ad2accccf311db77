"""`fxcell policy check` and `fxcell policy diff`. Nothing is started."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator

from fxcell.host.commands import exits
from fxcell.host.difference import Change, Side, difference, told
from fxcell.host.effects.basic import visible
from fxcell.host.wide_grants import wide_grants
from fxcell.policies.errors import PolicyError
from fxcell.policies.loader import load_policy

_WIDTH = 110


def check_policy(spec: str, *, strict: bool, as_json: bool) -> int:
    """Load a policy and warn of grants that are seldom meant.

    strict: warnings count as a failure.
    Answers the exit code: 0; 1 for warnings with `strict`; 2 for a policy that cannot be used.
    """
    try:
        policy = load_policy(spec)
    except PolicyError as error:
        if as_json:
            print(json.dumps({"usable": False, "error": error.message, "file": error.file, "line": error.line}))
        return _refuse(str(error))
    warnings = wide_grants(policy)
    if as_json:
        found = [{"at": at, "text": text} for at, text in warnings]
        print(json.dumps({"usable": True, "policy": policy.name, "digest": policy.digest, "warnings": found}))
    else:
        count = f"{len(warnings)} warning{'s' * (len(warnings) != 1)}" if warnings else "no warnings"
        print(visible(f"Policy {policy.name}, digest {policy.digest[:12]}: usable, {count}"))
        for at, text in warnings:
            _print_wrapped(f"  {at}: ", text)
    return exits.DIFFERENT if warnings and strict else exits.VALUE


def diff_policies(first: str, second: str, *, as_json: bool) -> int:
    """Say what each of two policies allows that the other does not.

    Answers the exit code: 0 for policies of one digest, 1 for different ones, 2 for one that cannot be used.
    """
    try:
        a, b = load_policy(first), load_policy(second)
    except PolicyError as error:
        return _refuse(str(error))
    changes = difference(a, b)
    if as_json:
        print(json.dumps(told(a, b)))
    else:
        print(visible(f"A is {a.name}, digest {a.digest[:12]}; B is {b.name}, digest {b.digest[:12]}"))
        for title, found in _groups(changes):
            print(title)
            for change in found:
                _print_wrapped(f"  {change.at}: ", change.text)
    return exits.DIFFERENT if changes else exits.VALUE


def _groups(changes: tuple[Change, ...]) -> Iterator[tuple[str, list[Change]]]:
    titles = {
        Side.B: "B allows what A does not",
        Side.A: "A allows what B does not",
        Side.OTHER: "They differ, and neither allows more by it",
        Side.SAME: "They differ in writing, and allow the same by it",
    }
    for side, title in titles.items():
        found = [change for change in changes if change.side is side]
        if found or side in (Side.A, Side.B):
            yield title + ("" if found else ": nothing"), found


def _print_wrapped(head: str, text: str) -> None:
    head = visible(head)
    indent = "      "
    print(textwrap.fill(visible(text), _WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False))


def _refuse(text: str) -> int:
    print(f"fxcell: {visible(text)}", file=sys.stderr)
    return exits.USAGE
