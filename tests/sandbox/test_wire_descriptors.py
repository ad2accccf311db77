"""Descriptors from an enemy: too many, too few, or not the sealed memory that the message says are refused, and closed."""

from __future__ import annotations

import fcntl
import os

import pytest

from fxcell.sandbox import wire
from tests.sandbox.frames import GOOD, MiB, frame, memory, message_bytes, opened, use
from tests.sandbox.frames import pair as pair  # noqa: PLC0414 - the fixture


def value_frame(lengths, body=b"\xc0"):
    return frame(message_bytes("result", id=1, body=body, buffers=lengths))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 50, 200])
def test_descriptors_that_nobody_asked_for_are_closed_and_refused(pair, count):
    reader, writer = os.pipe()
    with opened(reader, writer):
        with pytest.raises(wire.WireError, match="descriptors"):
            pair.receive(frame(GOOD), [reader] * count)
        os.close(reader)
        with pytest.raises(BrokenPipeError):  # no copy of the reading end is left
            os.write(writer, b"x")


def test_missing_descriptor_is_a_wire_error(pair):
    with pytest.raises(wire.WireError):
        use(pair.channel, pair.receive(value_frame([65536])))


SEAL, SHRINK, GROW, WRITE = fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE


@pytest.mark.parametrize(
    "seals", [0, SHRINK, WRITE, SHRINK | GROW | WRITE, SEAL | SHRINK | WRITE, SEAL | GROW | WRITE, SEAL | SHRINK | GROW]
)
def test_memory_without_every_seal_is_refused(pair, seals):
    with opened(memory(65536, seals)) as fds, pytest.raises(wire.WireError, match="seal"):
        use(pair.channel, pair.receive(value_frame([65536]), fds))


@pytest.mark.parametrize(
    ("size", "lengths"), [(65535, [65536]), (65537, [65536]), (0, [65536]), (65536, [65536, 1]), (65536, [1])]
)
def test_memory_of_another_size_than_said_is_refused(pair, size, lengths):
    with opened(memory(size)) as fds, pytest.raises(wire.WireError):
        use(pair.channel, pair.receive(value_frame(lengths), fds))


@pytest.mark.parametrize("kind", ["pipe", "file", "socket", "directory", "terminal"])
def test_descriptor_that_is_no_sealed_memory_is_refused(pair, kind, tmp_path):
    (tmp_path / "file").write_bytes(bytes(65536))
    made = {
        "pipe": os.pipe, "file": lambda: [os.open(tmp_path / "file", os.O_RDONLY)], "socket": lambda: [os.dup(pair.enemy.fileno())],
        "directory": lambda: [os.open(tmp_path, os.O_RDONLY)], "terminal": os.openpty,
    }  # fmt: skip
    with opened(*made[kind]()) as fds, pytest.raises(wire.WireError):
        use(pair.channel, pair.receive(value_frame([65536]), fds[:1]))


@pytest.mark.parametrize("lengths", [[65536, 0], [2**63, 2**63], [2**64 - 1], [200 * MiB]])
def test_lengths_of_nothing_and_over_the_cap_are_refused(pair, lengths):
    with opened(memory(65536)) as fds, pytest.raises(wire.WireError, match=r"names buffers|over the cap"):
        use(pair.channel, pair.receive(value_frame(lengths), fds))
