"""What the machine gives without any library: a socketpair between two processes, a calculation in this one, an import."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import placing, work
from benchmarks.clock import latencies, timed

_ECHO = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
while data := line.recv(64):
    line.sendall(data)
"""
_IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def ping_pong(here: int | None, there: int | None, calls: int, slice_s: float) -> Iterator[list[float]]:
    """Seconds of 64 bytes there and back, over a blocking AF_UNIX stream socketpair to another Python process."""
    ours, theirs = socket.socketpair()
    with ours:
        command = [sys.executable, "-I", "-S", "-c", _ECHO, str(theirs.fileno())]
        echo = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        if here is not None and there is not None:
            placing.pin([0], here)
            placing.pin([echo.pid], there)
        payload = b"x" * 64

        def ping() -> None:
            ours.sendall(payload)
            ours.recv(64)

        try:
            while True:
                yield latencies(ping, calls, slice_s)
        finally:
            ours.close()
            echo.wait(10)


def calculations(items: int, rounds: int) -> Iterator[list[float]]:
    """Calculations per second in this one process."""
    work.calculate(rounds)
    while True:
        yield [items / timed(lambda: [work.calculate(rounds) for _ in range(items)])]


def outside(rounds: int, cpu: int) -> Iterator[list[float]]:
    """Seconds of one calculation in this process, pinned to one CPU."""
    os.sched_setaffinity(0, {cpu})
    work.calculate_timed(rounds)
    while True:
        yield [work.calculate_timed(rounds)]


def importing(statement: str) -> Iterator[list[float]]:
    """Seconds of an import statement in a fresh interpreter, by its own clock: its start is not counted."""
    command = [sys.executable, "-I", "-c", _IMPORT.format(statement)]
    subprocess.run(command, check=True, capture_output=True)  # compiled files and the file cache are warm from here on
    while True:
        yield [float(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)]
