"""Start of a hardened worker from a warm template, against an interpreter started in other sandboxes.

The judged row starts one at a time, with the others' starts in between: the template may work ahead of need. The last row
starts them back to back. The others' figures hold their end too, which comes at once; fxcell's worker is up and waits.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers import jails
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

LIMITS = {"bubblewrap": 0.20}
_BACK_TO_BACK = "fxcell, back to back"


def measure(effort: Effort) -> Iterator[Result]:
    sides = [
        Side(OURS, "benchmarks.peers.ours:starts", count=1),
        *(Side(jail, "benchmarks.peers.jails:starts", jail=jail) for jail in (*jails.NAMES, "subprocess")),
    ]
    yield from rows("hardened start, template warm", interleaved(sides, effort.of(60, 2)), LIMITS)
    if effort.quick:
        return
    sides = [
        Side(_BACK_TO_BACK, "benchmarks.peers.ours:starts", count=10),
        Side("bubblewrap", "benchmarks.peers.jails:starts", jail="bubblewrap"),
    ]
    yield from rows("hardened start, ten back to back", interleaved(sides, effort.of(10)), {}, ours=_BACK_TO_BACK)
