"""Round trip of a no-op to a warm hardened worker, against a raw blocking ping-pong and against pools of one worker.

Judged with the caller on one CPU and the worker on another. The last rows leave both to the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import placing
from benchmarks.peers.pools import NAMES
from benchmarks.results import Result
from benchmarks.rounds import OURS, Effort, interleaved, rows
from benchmarks.sides import Side

CALLS, SLICE_S = 200, 0.2
LIMITS = {"socketpair ping-pong": 1.0, "ProcessPoolExecutor": 0.20}


def measure(effort: Effort) -> Iterator[Result]:
    cpus = placing.two_cpus()
    if cpus is None:
        for peer, limit in LIMITS.items():
            yield Result(
                "warm no-op call, one CPU each", peer, limit=limit, skipped="this process may use one CPU only"
            )
    else:
        yield from _measure("warm no-op call, one CPU each", cpus, effort.of(20, 2), limits=LIMITS, pools=NAMES)
    if effort.quick:
        return
    what = "warm no-op call, left to the scheduler"
    yield from _measure(what, None, effort.of(10), limits={}, pools=("ProcessPoolExecutor",))


def _measure(
    what: str, cpus: tuple[int, int] | None, rounds: int, *, limits: dict[str, float], pools: tuple[str, ...]
) -> Iterator[Result]:
    here, there = cpus or (None, None)
    place = {"here": here, "there": there, "calls": CALLS, "slice_s": SLICE_S}
    sides = [
        Side(OURS, "benchmarks.peers.ours:command", **place),
        Side("fxcell.Pool", "benchmarks.peers.calls:call", pool="fxcell", **place),
        Side("socketpair ping-pong", "benchmarks.peers.raw:ping_pong", **place),
        *(Side(pool, "benchmarks.peers.calls:call", pool=pool, **place) for pool in pools),
    ]
    answers = interleaved(sides, rounds)
    peers = [name for name in answers.rounds if name not in (OURS, "fxcell.Pool")]
    yield from rows(what, answers, limits, peers=peers)
    yield from rows(what.replace("call", "Pool.run", 1), answers, {}, ours="fxcell.Pool", peers=peers[:2])
