"""One audit record on one core, against what was promised and against logging.FileHandler; see benchmarks/peers/audit.py."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.results import Result
from benchmarks.rounds import Effort, interleaved, rows
from benchmarks.sides import Side

PROMISED_S = 1e-4  # 10,000 records per second; the ratio to the other peer shows what the chain of hashes costs
_QUEUED, _ASKED, _PEER = "queued", "every second one waited for", "logging.FileHandler"


def measure(effort: Effort) -> Iterator[Result]:
    sides = [
        Side(_QUEUED, "benchmarks.peers.audit:ours", ask=False),
        Side(_ASKED, "benchmarks.peers.audit:ours", ask=True),
        Side(_PEER, "benchmarks.peers.audit:file_handler"),
    ]
    answers = interleaved(sides, effort.of(5))
    for ours in (_QUEUED, _ASKED):
        what = f"audit record, {ours}"
        yield Result(what, "10,000/s", answers.median(ours), PROMISED_S, limit=1.0, note=answers.failed.get(ours, ""))
        yield from rows(what, answers, {_PEER: 2.0}, ours=ours, peers=[_PEER])
