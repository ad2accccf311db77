"""Memory that an idle worker alone holds (USS: what its end would give back), of 50 that answered one call each.

The limit is the worker's. Each has a supervisor as well, which is fxcell's own: what both hold is shown, as are the pools' workers.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers import pools
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

WORKERS, PEERS_WORKERS = 50, 4
LIMIT_BYTES = 4 * 2**20


def measure(effort: Effort) -> Iterator[Result]:
    count, peers = effort.of(WORKERS, 5), effort.some(pools.NAMES)
    sides = [
        Side(OURS, "benchmarks.peers.ours:memory", counts=[count], supervisors=False),
        Side("with supervisor", "benchmarks.peers.ours:memory", counts=[count], supervisors=True),
        *(Side(pool, "benchmarks.peers.calls:memory", pool=pool, workers=PEERS_WORKERS) for pool in peers),
    ]
    answers = interleaved(sides, 1)
    for what, name, limit in (
        ("USS of an idle worker", OURS, 1.0),
        ("USS of an idle worker and its supervisor", "with supervisor", None),
    ):
        yield Result(
            f"{what}, {count} workers", "4 MiB", answers.median(name), LIMIT_BYTES, "B", limit,
            skipped=answers.absent.get(name, ""), note=answers.failed.get(name, ""),
        )  # fmt: skip
    yield from rows(
        f"USS of an idle worker, {PEERS_WORKERS} of the peer's", answers, {}, unit="B", peers=list(peers)
    )
