"""`import fxcell` in a fresh interpreter, against `import asyncio`; by the interpreter's own clock, without its start.

`import fxcell` loads names when they are first used; the last row is what a first use of FX and run loads.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

PEER = "import asyncio"
_ALL = "from fxcell import FX, run"


def measure(effort: Effort) -> Iterator[Result]:
    sides = [
        Side(OURS, "benchmarks.peers.raw:importing", statement="import fxcell"),
        Side(PEER, "benchmarks.peers.raw:importing", statement=PEER),
        Side(_ALL, "benchmarks.peers.raw:importing", statement=_ALL),
    ]
    answers = interleaved(sides, effort.of(15, 2))
    yield from rows("import fxcell", answers, {PEER: 2.0}, peers=[PEER])
    yield from rows(_ALL, answers, {}, ours=_ALL, peers=[PEER])
