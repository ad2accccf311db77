"""Round trip of a no-op to a warm hardened worker, against a raw blocking ping-pong of 64 bytes between two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.results import Result, median
from fxcell import FX, run, zef_function

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
def ask_the_time(count: int) -> float:
    import time

    start = time.perf_counter()
    for _ in range(count):
        FX.Now() | run
    return (time.perf_counter() - start) / count


def measure() -> Iterator[Result]:
    ours, theirs = socket.socketpair()
    echo = subprocess.Popen([sys.executable, "-I", "-S", "-c", _ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    worker = FX.StartWorkerProcess() | run
    command = FX.SendCommandToWorkerProcess(process=worker, command=nothing())
    now = FX.SendCommandToWorkerProcess(process=worker, command=ask_the_time(CALLS))
    payload = b"x" * 64

    def ping() -> None:
        ours.sendall(payload)
        ours.recv(64)

    try:
        calls, effects, pings = [], [], []
        for _ in range(ROUNDS):
            pings += _samples(ping)
            calls += _samples(lambda: command | run)
            effects.append(now | run)
        yield Result("warm no-op call", "raw socketpair ping-pong", median(calls), median(pings), 2.0)
        yield Result(
            "effect round trip from inside (FX.Now)", "raw socketpair ping-pong", median(effects), median(pings), 2.0
        )
        cpus = os.sched_getaffinity(0)
        if len(cpus) > 1:
            yield from _pinned(min(cpus), ping, echo)
    finally:
        FX.StopWorkerProcess(process=worker) | run
        ours.close()
        echo.wait()


def _pinned(cpu: int, ping: Callable[[], None], echo: subprocess.Popen[bytes]) -> Iterator[Result]:
    """The same with both sides on one CPU: no waking of a sleeping core in it, so this is the cost of our own code."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    os.sched_setaffinity(echo.pid, {cpu})
    try:
        from fxcell.policies.loader import load_policy

        policy = load_policy("compute").replaced(preload=("json",))  # another digest: a template started on this CPU
        worker = FX.StartWorkerProcess(policy=policy) | run
        command = FX.SendCommandToWorkerProcess(process=worker, command=nothing())
        calls, pings = [], []
        for _ in range(ROUNDS):
            pings += _samples(ping)
            calls += _samples(lambda: command | run)
        FX.StopWorkerProcess(process=worker) | run
    finally:
        os.sched_setaffinity(0, before)
        os.sched_setaffinity(echo.pid, before)
    yield Result("warm no-op call, both on one CPU", "the same ping-pong, pinned", median(calls), median(pings), 5.0)


def _samples(action: Callable[[], object]) -> list[float]:
    for _ in range(20):
        action()
    samples = []
    for _ in range(CALLS):
        start = time.perf_counter()
        action()
        samples.append(time.perf_counter() - start)
    return samples
