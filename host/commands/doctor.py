"""`fxcell doctor`: what holds on this machine, why not, and what to change."""

from __future__ import annotations

import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fxcell.host import shutdown
from fxcell.host.commands import exits
from fxcell.host.doctor import NO_TIER, Report, examine
from fxcell.host.doctor_machine import Row, State
from fxcell.host.effects.basic import visible
from fxcell.policies.errors import PolicyError
from fxcell.policies.loader import load_policy
from fxcell.policies.policy import Isolation

REACHED, NOT_REACHED = 0, 1

_PLAIN_WIDTH = 170
"""Characters of a line when stdout is no terminal."""
_STYLES = {State.HOLDS: "green", State.MISSING: "bold red", State.WEAKER: "yellow", State.ERROR: "bold red"}


def run_doctor(policy: str, *, as_json: bool) -> int:
    """Examine the machine for a policy, print what was found, answer the exit code. After: nothing is left."""
    try:
        report = examine(load_policy(policy))
    except PolicyError as error:
        print(f"fxcell: {visible(str(error))}", file=sys.stderr)
        return exits.USAGE
    finally:
        shutdown()
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        _print(report)
    return REACHED if report.reached else NOT_REACHED


def _print(report: Report) -> None:
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PLAIN_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "here", "found", "needs"):
        table.add_column(name, overflow="fold")
    for number, row in enumerate(report.rows):
        ends_part = number + 1 < len(report.rows) and report.rows[number + 1].group != row.group
        state = Text(row.state.value, style=_STYLES.get(row.state, ""))
        table.add_row(Text(row.name), state, Text(visible(_found(row))), Text(row.needs), end_section=ends_part)
    console.print(table)
    for note in report.notes:
        console.print(Text(f"This kernel: {visible(note)}"))
    # Some rows are refused by the same thing: its cure is told once.
    fixes: dict[str, list[str]] = {}
    for row in report.rows:
        if row.fix:
            fixes.setdefault(row.fix, []).append(row.name)
    for fix, names in fixes.items():
        console.print(Text(f"To have {' and '.join(names)}:", style="bold"))
        for line in fix.splitlines():
            console.print(Text(f"  {visible(line)}"), soft_wrap=True)
    console.print(Text(last_line(report), style="bold"))


def last_line(report: Report) -> str:
    """The tier this machine reaches, and whether that is enough for the policy."""
    tier = {Isolation.TRUSTED.value: "trusted only", NO_TIER: "none: no worker starts"}.get(report.tier, report.tier)
    verdict = "a worker starts under it" if report.reached else "no worker starts under it"
    return f"Tier of this machine: {tier}. Policy {report.policy!r} accepts {report.accepts}: {verdict}."


def _found(row: Row) -> str:
    return "; ".join(part for part in (row.found, row.cause) if part)
