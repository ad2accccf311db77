"""One audit record on one core: fxcell's log, and logging.FileHandler with the same record as a JSON line.

Records are put as the broker puts them, pairs of `granted` (waited for until written) and `done`, from two threads, and
also without waiting. Both sides end when every line has been given to the kernel.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator

from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.writer import Writer

RECORDS = 10_000
_RECORD = {
    "event": "effect", "decision": "granted", "worker": "w1-4711-a1b2c3", "policy": "compute", "policy_digest": "0123456789ab",
    "command": "0123456789ab", "plugin": "0123456789ab", "effect": "Print", "number": 1, "arguments": {"content": "hello"},
    "rule": "effects.Print",
}  # fmt: skip


def ours(ask: bool) -> Iterator[list[float]]:
    """Seconds per record; with `ask` every second one is waited for."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        yield [_ours(ask=ask)]


def file_handler() -> Iterator[list[float]]:
    """Seconds per record by logging.FileHandler."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        yield [_logging()]


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
