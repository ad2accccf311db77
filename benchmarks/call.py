"""Round trip of a no-op to a warm hardened worker, against a raw blocking ping-pong of 64 bytes between two processes.

Where the two sides run decides more than anything else, so it is fixed: both on one CPU, or one on each. (Left alone, the
scheduler moves a ping-pong to one CPU as soon as anything else runs, which makes it four times as fast.)
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil

from benchmarks.results import Result, median
from fxcell import FX, run, zef_function
from fxcell.host import registry

ROUNDS, CALLS = 20, 200
_ECHO = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
while data := line.recv(64):
    line.sendall(data)
"""


@zef_function
def nothing() -> None:
    return None


@zef_function
def ask_the_time(count: int) -> list[float]:
    import time

    samples = []
    for _ in range(count):
        start = time.perf_counter()
        FX.Now() | run
        samples.append(time.perf_counter() - start)
    return samples


def measure() -> Iterator[Result]:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        yield from _measure("one CPU each", cpus[0], cpus[1], call_limit=2.0, effect_limit=1.5)
    yield from _measure("both on one CPU", cpus[0], cpus[0], call_limit=8.0, effect_limit=8.0)


def _measure(where: str, here: int, there: int, *, call_limit: float, effect_limit: float) -> Iterator[Result]:
    before = os.sched_getaffinity(0)
    # The CPUs that are there when a worker starts decide whether it may wait without sleeping.
    os.sched_setaffinity(0, {here, there})
    ours, theirs = socket.socketpair()
    echo = subprocess.Popen([sys.executable, "-I", "-S", "-c", _ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    worker = FX.StartWorkerProcess() | run
    command = FX.SendCommandToWorkerProcess(process=worker, command=nothing())
    now = FX.SendCommandToWorkerProcess(process=worker, command=ask_the_time(CALLS))

    def ping() -> None:
        ours.sendall(payload)
        ours.recv(64)

    payload = b"x" * 64
    try:
        os.sched_setaffinity(0, {here})
        for pid in (echo.pid, *(child.pid for child in psutil.Process(registry.session_of(worker).pid).children())):
            os.sched_setaffinity(pid, {there})
        calls, effects, pings = [], [], []
        for _ in range(ROUNDS):
            pings += _samples(ping)
            calls += _samples(lambda: command | run)
            effects += now | run
        peer = "raw socketpair ping-pong"
        yield Result(f"warm no-op call, {where}", peer, median(calls), median(pings), call_limit)
        yield Result(f"effect round trip from inside (FX.Now), {where}", peer, median(effects), median(pings), effect_limit)
    finally:
        os.sched_setaffinity(0, before)
        FX.StopWorkerProcess(process=worker) | run
        import fxcell.host

        fxcell.host.shutdown()  # the next row needs a template that was started on its own CPUs
        ours.close()
        echo.wait()


def _samples(action: Callable[[], object]) -> list[float]:
    for _ in range(20):
        action()
    samples = []
    for _ in range(CALLS):
        start = time.perf_counter()
        action()
        samples.append(time.perf_counter() - start)
    return samples
