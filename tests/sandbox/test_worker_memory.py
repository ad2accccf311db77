"""What workers that wait cost: pages of their own, on top of what all share with the template."""

import contextlib
import re
import socket
import statistics
from pathlib import Path

import pytest

from fxcell import FX, run, zef_function
from fxcell.host import registry
from fxcell.sandbox import stream, wire
from fxcell.sandbox.kernel import processes

MiB = 2**20
WORKERS = 12


@zef_function
def nothing():
    return None


def private_bytes(pid):
    """Memory that would come back if this process ended."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(1024 * int(size) for size in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE))


@pytest.mark.needs_root  # others may not look: workers are not dumpable
@pytest.mark.slow
def test_worker_that_has_answered_and_waits_has_at_most_4_mebibytes_of_its_own():
    workers = [FX.StartWorkerProcess() | run for _ in range(WORKERS)]
    try:
        for worker in workers:
            FX.SendCommandToWorkerProcess(process=worker, command=nothing()) | run
        supervisors = [registry.session_of(worker).pid for worker in workers]
        inside = [child for supervisor in supervisors for child in processes.children_of(supervisor)]
        assert len(inside) == WORKERS
        worker_bytes = statistics.median(map(private_bytes, inside))
        supervisor_bytes = statistics.median(map(private_bytes, supervisors))
    finally:
        for worker in workers:
            FX.StopWorkerProcess(process=worker) | run
    assert worker_bytes <= 4 * MiB
    assert supervisor_bytes <= 2 * MiB


def test_channel_on_which_little_comes_takes_little_memory():
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(64)]
        for ours, theirs in pairs:
            stack.enter_context(theirs)
            stack.enter_context(contextlib.closing(ours))
        before = private_bytes("self")
        channels = [wire.Channel(ours, max_value_bytes=MiB) for ours, _ in pairs]
        for (_, theirs), channel in zip(pairs, channels, strict=True):
            sender = wire.Channel(theirs, max_value_bytes=MiB)
            sender.send(wire.Message.new_message(stop=None))
            assert channel.receive().which() == "stop"
        grown = private_bytes("self") - before
    assert grown < 64 * stream._READ_BYTES // 4
