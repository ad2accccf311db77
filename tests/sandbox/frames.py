"""What tests of the wire share: a channel with an enemy at its other end, frames made by hand, and how the host reads them."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import threading
import time

import capnp
import pytest

from fxcell.sandbox import wire
from fxcell.sandbox.kernel import memfd
from tests import leaks

HEADER = struct.Struct("<4sI")
MiB = 2**20


class Pair:
    """A channel, and a plain socket at its other end."""

    def __init__(self, max_value_bytes=128 * MiB, *, spin=False):
        ours, self.enemy = socket.socketpair()
        self.channel = wire.Channel(ours, max_value_bytes=max_value_bytes, spin=spin)

    def receive(self, data=b"", fds=(), *, ends=True, patience_s=5.0):
        """Send these bytes and descriptors, close, and receive one message."""
        sender = threading.Thread(target=self.write, args=(data, fds, ends))
        sender.start()
        try:
            return self.channel.receive(time.monotonic() + patience_s)
        finally:
            self.channel.socket.shutdown(socket.SHUT_RDWR)
            sender.join()

    def write(self, data, fds=(), ends=True):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if data:
                sent = self.enemy.sendmsg([data], ancillary)
                self.enemy.sendall(data[sent:])
            if ends:
                self.enemy.shutdown(socket.SHUT_WR)

    def close(self):
        self.channel.close()
        self.enemy.close()


@pytest.fixture
def pair():
    with leaks.assert_nothing_left():
        made = Pair()
        yield made
        made.close()


def frame(body, length=None, magic=wire.MAGIC):
    return HEADER.pack(magic, len(body) if length is None else length) + body


def message_bytes(kind="output", /, **fields):
    message = wire.Message.new_message(id=fields.pop("id", 0))
    target = message.init(kind)
    for name, value in fields.items():
        setattr(target, name, value)
    return message.to_bytes()


def segments(*parts):
    """Cap'n Proto stream framing: the segment table, then the segments."""
    table = struct.pack("<I", len(parts) - 1) + b"".join(struct.pack("<I", len(part) // 8) for part in parts)
    return table + b"\0" * (-len(table) % 8) + b"".join(parts)


def words(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *(number % 2**64 for number in numbers))


def struct_pointer(offset, data, pointers):
    return offset % 2**30 << 2 | data << 32 | pointers << 48


def list_pointer(offset, size, count):
    return 1 | offset % 2**30 << 2 | size << 32 | count << 35


def far_pointer(segment, offset, *, double=False):
    return 2 | double << 2 | offset << 3 | segment << 32


RESULT_TAG = 10
GOOD = message_bytes("output", stream=1, data=b"text")


def looped_far_pointers(double):
    return segments(words(far_pointer(1, 0, double=double)), words(far_pointer(0, 0, double=double), 0))


POINTERS = {
    "far pointer to itself": segments(words(far_pointer(0, 0))),
    "far pointers in a circle": looped_far_pointers(double=False),
    "double far pointers in a circle": looped_far_pointers(double=True),
    "far pointer to a segment that is not there": segments(words(far_pointer(7, 0))),
    "far pointer beyond its segment": segments(words(far_pointer(0, 2**28))),
    "struct beyond the message": segments(words(struct_pointer(1000, 2, 1))),
    "struct before the message": segments(words(struct_pointer(-5, 2, 1))),
    "root is a list": segments(words(list_pointer(0, 2, 8), 0)),
    "root is a capability": segments(words(3)),
    "unknown kind": segments(words(struct_pointer(0, 2, 1), 0, 999, 0)),
    "value beyond the message": segments(words(struct_pointer(0, 2, 1), 1, RESULT_TAG, struct_pointer(2**20, 0, 2))),
    "value that is its own struct": segments(words(struct_pointer(0, 2, 1), 1, RESULT_TAG, struct_pointer(-1, 0, 2))),
    "body of 512 MiB that is not there": segments(
        words(struct_pointer(0, 2, 1), 1, RESULT_TAG, struct_pointer(0, 0, 2), list_pointer(1, 2, 2**29 - 1), 0)
    ),
    "list of empty structs, half a milliard of them": segments(
        words(struct_pointer(0, 2, 1), 1, RESULT_TAG, struct_pointer(0, 0, 2), 0, list_pointer(0, 0, 2**29 - 1))
    ),
    "list of composites, amplified": segments(
        words(
            struct_pointer(0, 2, 1),
            1,
            RESULT_TAG,
            struct_pointer(0, 0, 2),
            0,
            list_pointer(0, 7, 0),
            struct_pointer(2**28, 0, 0),
        )
    ),
    "text without its NUL": segments(
        words(
            struct_pointer(0, 2, 1),
            1,
            12,
            struct_pointer(0, 0, 5),
            list_pointer(4, 2, 8),
            0,
            0,
            0,
            0,
            0x4141414141414141,
        )
    ),
    "text of no bytes at all": segments(
        words(struct_pointer(0, 2, 1), 1, 12, struct_pointer(0, 0, 5), list_pointer(4, 2, 0), 0, 0, 0, 0, 0)
    ),
    "text that is not UTF-8": segments(
        words(
            struct_pointer(0, 2, 1),
            1,
            12,
            struct_pointer(0, 0, 5),
            list_pointer(4, 2, 8),
            0,
            0,
            0,
            0,
            0x00FFFEFDFCFBFAF9,
        )
    ),
    "text that is a list of pointers": segments(
        words(struct_pointer(0, 2, 1), 1, 12, struct_pointer(0, 0, 5), list_pointer(4, 6, 1), 0, 0, 0, 0, 0)
    ),
}


MALFORMED = (wire.WireError, capnp.KjException, UnicodeError)
"""What a received frame may raise. Fields are read when they are asked for, so pycapnp's own error is one of them."""


def use(channel, message):
    """Read what the host reads of a message that a worker or a supervisor may send. Only MALFORMED may come of it."""
    kind = message.which()
    if kind in ("effect", "result"):
        channel.value_of(getattr(message, kind), allow_calls=False)
    elif kind == "failure":
        failure = message.failure
        [str(text) for text in (failure.kind, failure.typeName, failure.message, failure.traceback)]
    elif kind == "output":
        (message.output.stream, bytes(message.output.data))
    elif kind == "hello":
        (message.hello.protocol, bytes(message.hello.enforced))


@contextlib.contextmanager
def opened(*descriptors):
    yield descriptors
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def memory(size, seals=memfd._SEALS):
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
