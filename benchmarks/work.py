"""What is called in workers: plain functions of the standard library alone, importable by every pool's workers."""

from __future__ import annotations


def nothing() -> None:
    return None


def one(_number: int) -> None:
    """The no-op for maps."""
    return


def echo(value: object) -> object:
    return value


def pid() -> int:
    import os

    return os.getpid()


def die(_number: int) -> None:
    """End this worker at once, without a word. The number makes each call another input."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def calculate(rounds: int) -> int:
    """Pure computation: numbers, a dict, lists and hashes. About 1 ms for each 10 rounds."""
    import hashlib

    total, seen = 0, {}
    for number in range(rounds):
        values = [value * value % 7919 for value in range(number, number + 500)]
        for value in values:
            seen[value] = seen.get(value, 0) + 1
        values.sort()
        total += sum(values) + hashlib.sha256(bytes(values[0] % 256 for _ in range(64))).digest()[0]
    return total + len(seen)


def calculate_timed(rounds: int) -> float:
    """Seconds of calculate(rounds) by the clock of the process that runs it."""
    import time

    start = time.perf_counter()
    calculate(rounds)
    return time.perf_counter() - start
