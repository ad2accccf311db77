"""Uses more than its share: memory, processes, threads, descriptors, output, time. Every loop ends at a number."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any


def memory(do: Any, most_bytes: int) -> None:
    """Take more memory than the policy allows."""
    blocks: list[bytearray] = []
    while len(blocks) < most_bytes >> 20:
        blocks.append(bytearray(b"x") * (1 << 20))
    do.did.append(f"{len(blocks)} MiB")


def unpack(do: Any, most_bytes: int) -> None:
    """Unpack a small text that becomes large."""
    import zlib

    deflate = zlib.compressobj(9, wbits=-15)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)  # stands for itself: can be repeated
    unpacked = zlib.decompressobj(wbits=-15).decompress(block * (most_bytes >> 20))
    do.did.append(f"{len(unpacked)} bytes")


def forks(do: Any, most: int) -> None:
    """More processes than the policy allows; they all end with this one."""
    reader, writer = os.pipe()
    made = 0
    try:
        for _ in range(most):
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            made += 1
    except OSError as error:
        do.refused.append([f"fork number {made + 1}", str(error.errno)])
    else:
        do.did.append(f"{made} processes")
    os.close(writer)
    os.close(reader)


def threads(do: Any, most: int) -> None:
    """More threads than the policy allows."""
    import threading

    gate = threading.Event()
    made = 0
    try:
        for _ in range(most):
            threading.Thread(target=gate.wait, daemon=True).start()
            made += 1
    except RuntimeError:
        do.refused.append([f"thread number {made + 1}", "EAGAIN"])
    else:
        do.did.append(f"{made} threads")
    gate.set()


def descriptors(do: Any, most: int) -> None:
    """More open files than the policy allows."""
    opened: list[int] = []
    try:
        while len(opened) < most:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        do.refused.append([f"descriptor {len(opened)}", "EMFILE"])
    else:
        do.did.append(f"{len(opened)} descriptors")
    for descriptor in opened:
        os.close(descriptor)


def output(do: Any, descriptor: int, most_bytes: int) -> None:
    """Write more output than the policy allows."""
    written = 0
    block = b"y" * 4096 + b"\n"
    while written <= most_bytes:
        written += os.write(descriptor, block)
    do.did.append(f"{written} bytes")


def printed(do: Any, most_bytes: int) -> None:
    """The same with print()."""
    for _ in range(most_bytes // 1000 + 1):
        print("x" * 1000)  # noqa: T201 - the point of it
    sys.stdout.flush()
    do.did.append("printed")


def loop(do: Any) -> None:
    """Never answer, deaf to every signal that can be ignored."""
    import contextlib

    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    while True:
        do.did.clear()


def sleep(do: Any) -> None:
    """Never answer, and use no CPU time."""
    time.sleep(3600)
    do.did.append("slept")


def match(do: Any) -> None:
    """A regular expression that holds the interpreter for longer than the universe lasts."""
    import re

    do.did.append(repr(re.match(r"(a+)+$", "a" * 64 + "b")))


def stop_self(do: Any) -> None:
    """Stop, as a debugger would stop it."""
    os.kill(os.getpid(), signal.SIGSTOP)
    do.did.append("went on")
