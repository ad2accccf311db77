"""`fxcell policy explain` and `fxcell policy show`."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from fxcell.host.commands import exits
from fxcell.host.effects.basic import visible
from fxcell.host.explain import explain
from fxcell.policies.errors import PolicyError
from fxcell.policies.loader import load_policy
from fxcell.policies.toml_text import to_toml

_WIDTH = 110


def explain_policy(spec: str, *, as_json: bool, show_filter: bool) -> int:
    """Print what the policy means; answer the exit code: 0, or 2 for a policy that cannot be used."""
    try:
        told = explain(load_policy(spec), disassembled=show_filter)
    except PolicyError as error:
        return _refuse(str(error))
    except (FileNotFoundError, NotADirectoryError) as error:
        return _refuse(f"the policy shows {str(error)!r} in `visible`, which is not a directory")
    if as_json:
        print(json.dumps(told))
    else:
        for number, line in enumerate(_lines(told)):
            if number and not line.startswith(" "):
                print()  # each part begins at the margin
            print(visible(line))
    return exits.VALUE


def show_policy(spec: str) -> int:
    """Print the policy as one TOML file that loads to the same digest; exit codes as explain_policy."""
    try:
        print(to_toml(load_policy(spec)), end="")
    except PolicyError as error:
        return _refuse(str(error))
    return exits.VALUE


def _refuse(text: str) -> int:
    print(f"fxcell: {visible(text)}", file=sys.stderr)
    return exits.USAGE


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"Policy {told['policy']}, digest {told['digest'][:12]}"
    yield from _wrapped("  ", told["description"])
    yield f"  Accepts the tier {told['accepts']['tier']}: {told['accepts']['means']}."
    yield from _part("Layers, in the order in which a worker is locked down", told["layers"], "layer", "reason")
    yield "  Each is read back by the worker, and checked by the host, before any plugin code comes."
    if "layers_without_namespaces" in told:
        yield f"  Where namespaces are denied: {', '.join(told['layers_without_namespaces'])}."
    yield from _part("Words of `allow`", told["words"], "word", "opens")
    yield from _part("Effects that the host performs on the worker's behalf", told["effects"], "effect", "text")
    yield from _part("Limits", told["limits"], "limit", "text")
    if told["preload"]:
        yield f"Imported beforehand, outside the sandbox: {', '.join(told['preload'])}"
    if told["calls"] is None:
        yield "Every system call reaches the kernel and every file of the user can be reached: this isolation closes none."
        return
    yield from _calls(told["calls"])
    yield from _filter(told["filter"])
    yield "What a worker can see of the file system, read-only"
    yield from (f"  {path}" for path in told["view"]["trees"])
    yield from (f"  {link}" for link in told["view"]["links"])
    yield from (f"  {path} (shown empty)" for path in told["view"]["shown_empty"])
    yield from (f"  {path} (device)" for path in told["view"]["devices"])


def _part(title: str, rows: list[dict[str, Any]], key: str, value: str) -> Iterator[str]:
    yield f"{title}" + ("" if rows else ": none")
    width = max((len(row[key]) for row in rows), default=0)
    for row in rows:
        yield from _wrapped(f"  {row[key]:{width}}  ", row[value])


def _calls(calls: dict[str, Any]) -> Iterator[str]:
    yield f"System calls that reach the kernel ({calls['reachable']} on {calls['architecture']}), by who needs them"
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in calls["allowed"]:
        grouped.setdefault((row["reason"], row["condition"]), []).append(row["name"])
    for (reason, condition), names in grouped.items():
        yield from _wrapped("  ", f"{' '.join(names)}{f' [{condition}]' if condition else ''}: {reason}")
    for row in calls["allowed_with_memory_cgroup"]:
        yield from _wrapped("  ", f"{row['name']} [{row['condition']}], only where there is one: {row['reason']}")
    yield "Refused with an errno, with any arguments that are not allowed above"
    for group in calls["refused"]:
        yield from _wrapped(f"  {group['errno']:11}", f"{group['reason']}: {' '.join(group['names'])}")
    yield f"Every other call ends the worker as denied_syscall: {len(calls['ends_the_worker'])} of those this system names"
    yield from _wrapped("  ", " ".join(calls["ends_the_worker"]))
    yield "  A call of another architecture, 32-bit or x32, kills the worker at once; numbers of newer kernels are ENOSYS."


def _filter(compiled: dict[str, Any]) -> Iterator[str]:
    yield f"Compiled filter: {compiled['instructions']} instructions, {compiled['bytes']:,} bytes"
    yield from (f"  {line}" for line in compiled.get("disassembly", ()))


def _wrapped(head: str, text: str) -> Iterator[str]:
    indent = " " * max(4, len(head)) if len(head) > 4 else "      "
    yield from textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)
