"""Start of a hardened worker from a warm template, against an interpreter started in bubblewrap."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.results import Result, median
from fxcell import FX, run

ROUNDS = 100


def measure() -> Iterator[Result]:
    what, peer, limit = "hardened start, template warm", "bwrap --unshare-all + python3 -I -S -c pass", 0.35
    bwrap = shutil.which("bwrap")
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run  # the template is warm from here on
    if bwrap is None:
        yield Result(what, peer, limit=limit, skipped="bwrap is not installed (Debian: apt-get install bubblewrap)")
        return
    command = [bwrap, "--unshare-all", "--ro-bind", "/", "/", sys.executable, "-I", "-S", "-c", "pass"]
    ours, theirs = [], []
    for _ in range(ROUNDS):
        seconds, worker = _timed(lambda: FX.StartWorkerProcess() | run)
        ours.append(seconds)
        FX.StopWorkerProcess(process=worker) | run
        theirs.append(_timed(lambda: subprocess.run(command, check=True))[0])
    yield Result(what, peer, median(ours), median(theirs), limit)


def _timed(action: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result
