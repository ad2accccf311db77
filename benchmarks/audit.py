"""One audit record on one core, against the same record by logging.FileHandler as a JSON line.

Records are put as the broker puts them, pairs of `granted` (waited for until written) and `done`, from two threads, and
also without waiting. Both sides end when every line has been given to the kernel.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from benchmarks.results import Result, median
from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.writer import Writer

ROUNDS, RECORDS = 5, 10_000
_RECORD = {
    "event": "effect", "decision": "granted", "worker": "w1-4711-a1b2c3", "policy": "compute", "policy_digest": "0123456789ab",
    "command": "0123456789ab", "plugin": "0123456789ab", "effect": "Print", "number": 1, "arguments": {"content": "hello"},
    "rule": "effects.Print",
}  # fmt: skip


def measure() -> Iterator[Result]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    queued, asked, peer = [], [], []
    try:
        for _ in range(ROUNDS):
            queued.append(_ours(ask=False))
            asked.append(_ours(ask=True))
            peer.append(_logging())
    finally:
        os.sched_setaffinity(0, before)
    for what, ours in (("queued", queued), ("every second one waited for", asked)):
        print(f"audit, {what}: {1 / median(ours):,.0f} records/s on one core", file=sys.stderr)
        # 100 µs: 10,000 records per second is what was promised; the ratio shows what the chain costs.
        yield Result(f"audit record, {what}", "10,000/s", median(ours), 1e-4, 1.0)
        yield Result(f"audit record, {what}", "logging.FileHandler", median(ours), median(peer), 2.0)


def _ours(*, ask: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(AuditFile(f"{folder}/log", 2**30, 1, None), drop=False)

        def put() -> None:
            for number in range(RECORDS // 2):
                writer.put(_RECORD, ask=ask and number % 2 == 0)

        threads = [threading.Thread(target=put) for _ in range(2)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()
        return (time.perf_counter() - start) / RECORDS


def _logging() -> float:
    with tempfile.TemporaryDirectory() as folder:
        logger = logging.Logger("peer")  # noqa: LOG001 - none of the process's own
        handler = logging.FileHandler(f"{folder}/log")
        logger.addHandler(handler)
        start = time.perf_counter()
        for number in range(RECORDS):
            logger.info("%s", json.dumps({"seq": number, "time": time.time(), "host": os.getpid(), **_RECORD}))
        handler.close()
        return (time.perf_counter() - start) / RECORDS
