"""`fxcell selftest`: attacks tried for real, as a table for people or as JSON for programs."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import fxcell
from fxcell.host import shutdown
from fxcell.host.commands import exits
from fxcell.host.commands.shown import to_json
from fxcell.host.effects.basic import visible
from fxcell.host.selftest import judgement, trial
from fxcell.policies.errors import FxcellError
from fxcell.policies.loader import load_policy

_STYLES = {
    judgement.NOT_CONTAINED: "bold red",
    judgement.GRANTED: "yellow",
    judgement.SKIPPED: "dim",
    judgement.HELD: "green",
}
_PLAIN_WIDTH = 170
"""Characters of a line when stdout is no terminal."""
_DETAIL_CHARACTERS = 150


def run_selftest(policy_name: str, *, as_json: bool) -> int:
    """Try every attack under the policy, print what happened, answer the exit code.

    After: nothing of the workers, and none of the sentinels, is left.
    """
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PLAIN_WIDTH)
    status = Console(stderr=True, highlight=False).status("")
    try:
        policy = load_policy(policy_name)
        with status:
            tried = trial.perform(policy, progress=lambda name: status.update(f"selftest of {policy.name}: {name}"))
    except FxcellError as error:
        print(f"fxcell: {visible(str(error))}", file=sys.stderr)
        if as_json:
            print(to_json({"outcome": type(error).__name__, "message": str(error)}))
        return exits.code_of(error)
    except KeyboardInterrupt:
        print("fxcell: interrupted; the workers were ended", file=sys.stderr)
        return exits.INTERRUPTED
    finally:
        shutdown()
    if as_json:
        print(to_json(to_data(tried)))
    else:
        _print(console, tried)
    return exits.VALUE if tried.held else exits.PLUGIN_ERROR


def to_data(tried: trial.Trial) -> dict[str, Any]:
    """The trial as plain data: keys never change meaning, new ones may come."""
    return {
        "fxcell": fxcell.__version__,
        "held": tried.held,
        "policy": {"name": tried.policy.name, "digest": tried.policy.digest},
        "tier": tried.plan.tier.value,
        "layers": list(tried.plan.layers),
        "notes": list(tried.plan.notes),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "uid": os.geteuid(),
        "imported_beforehand": list(tried.preloaded),
        "seconds": round(tried.seconds, 3),
        "counts": _counts(tried),
        "attacks": [
            {
                "name": row.attack.name,
                "category": row.attack.category,
                "tries": row.attack.tries,
                "verdict": row.verdict,
                "outcome": row.outcome,
                "detail": row.detail[:2000],
                "layer": row.layer,
                "secret_seen": row.seen,
                "sentinels_touched": list(row.touched),
                "seconds": round(row.seconds, 3),
            }
            for row in tried.rows
        ],
    }


def _counts(tried: trial.Trial) -> dict[str, int]:
    found = Counter(row.verdict for row in tried.rows)
    names = {
        "ok": judgement.HELD,
        "granted": judgement.GRANTED,
        "not_contained": judgement.NOT_CONTAINED,
        "skipped": judgement.SKIPPED,
    }
    return {"tried": len(tried.rows), **{name: found[verdict] for name, verdict in names.items()}}


def _print(console: Console, tried: trial.Trial) -> None:
    console.print(_table(tried))
    counts = _counts(tried)
    who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    lines = [
        f"Policy {tried.policy.name!r}, tier {tried.plan.tier.value}, Linux {platform.release()}, as {who}, {tried.seconds:.1f} s.",
        f"Layers: {', '.join(tried.plan.layers)}.",
        *(f"Note: {note}." for note in tried.plan.notes),
    ]
    if tried.preloaded:
        lines.append(
            f"The policy lets no library be loaded, so attacks found these imported beforehand: {', '.join(tried.preloaded)}."
        )
    lines.append(f"A worker beside the attacks was asked {tried.neighbour_asked} times and answered rightly.")
    for line in lines:
        console.print(Text(line))
    granted = f", {counts['granted']} worked as the policy grants" if counts["granted"] else ""
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    verdict = f"{counts['ok']} of {counts['tried']} attacks contained{granted}{skipped}, {counts['not_contained']} NOT CONTAINED."
    console.print(Text(verdict, style="bold" if tried.held else "bold red"))


def _table(tried: trial.Trial) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("attack", no_wrap=True)
    table.add_column("what it tries", ratio=4, min_width=24)
    table.add_column("what happened", ratio=7, overflow="fold")
    table.add_column("stopped by", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row, after in zip(tried.rows, (*tried.rows[1:], None), strict=True):
        # Text, not str: what an attack wrote is never markup.
        detail = row.detail if len(row.detail) <= _DETAIL_CHARACTERS else row.detail[: _DETAIL_CHARACTERS - 1] + "…"
        table.add_row(
            Text(row.attack.name), Text(row.attack.tries), Text(visible(f"{row.outcome}: {detail}" if row.outcome else detail)),
            Text(row.layer.replace(", ", "\n")), Text(row.verdict, style=_STYLES[row.verdict]),
            end_section=after is not None and after.attack.category != row.attack.category,
        )  # fmt: skip
    return table
