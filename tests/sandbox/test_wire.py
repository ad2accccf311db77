"""Frames from an enemy: every way in which bytes, lengths, pointers and descriptors can be wrong ends as WireError."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import struct
import threading
import time
import tracemalloc

import capnp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxcell.policies import values
from fxcell.policies.errors import MessageTooLarge
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


def test_good_frame_arrives(pair):
    message = pair.receive(frame(GOOD))
    assert (message.which(), message.output.stream, message.output.data) == ("output", 1, b"text")


NO_FRAMES = {
    "another version's magic": (frame(GOOD, magic=b"FXC2"), "starts with"),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", "starts with"),
    "no length": (frame(GOOD, length=0), "says it has 0"),
    "length below a message's least": (frame(GOOD, length=15), "says it has 15"),
    "length over the cap by one": (frame(GOOD, length=wire.FRAME_BYTES_MAX + 1), "says it has"),
    "length of 4 GiB": (frame(GOOD, length=2**32 - 1), "says it has"),
    "all ones": (frame(b"\xff" * 64), "not a message"),
    "segment that is not there": (frame(b"\0\0\0\0\xff\xff\xff\xff" + b"\0" * 56), "not a message"),
    "message cut by a word": (frame(GOOD[:-8]), "not a message"),
    "six hundred segments": (frame(segments(*[b""] * 600)), "not a message"),
}


@pytest.mark.parametrize("name", NO_FRAMES)
def test_bytes_that_are_no_frame_are_a_wire_error(pair, name):
    data, says = NO_FRAMES[name]
    with pytest.raises((wire.WireError, capnp.KjException), match=says):
        bytes(pair.receive(data).output.data)


def test_length_over_the_cap_is_refused_before_the_bytes_come_and_before_memory_is_taken(pair):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair.write(HEADER.pack(wire.MAGIC, 2**32 - 1), ends=False)
    with pytest.raises(wire.WireError, match="says it has 4294967295"):
        pair.channel.receive(time.monotonic() + 5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # KiB


@pytest.mark.parametrize("cut", [1, 4, 7, 8, 9, 20, len(frame(GOOD)) - 1])
def test_end_in_the_middle_of_a_frame_says_so(pair, cut):
    with pytest.raises(wire.ChannelClosed) as closed:
        pair.receive(frame(GOOD)[:cut])
    assert closed.value.mid_frame is True


def test_end_between_frames_says_so(pair):
    with pytest.raises(wire.ChannelClosed) as closed:
        pair.receive(b"")
    assert closed.value.mid_frame is False


@pytest.mark.parametrize("spin", [False, True])
@pytest.mark.parametrize(
    "part", [b"", b"FX", frame(GOOD)[:-1], HEADER.pack(wire.MAGIC, wire.FRAME_BYTES_MAX) + b"x" * 1000]
)
def test_silence_ends_at_the_deadline(part, spin):
    pair = Pair(spin=spin)
    pair.write(part, ends=False)
    started = time.monotonic()
    with pytest.raises(wire.DeadlinePassed):
        pair.channel.receive(started + 0.1)
    assert 0.1 <= time.monotonic() - started < 2
    pair.close()


def test_bytes_that_trickle_do_not_move_the_deadline(pair):
    stop = threading.Event()

    def trickle():
        for byte in frame(GOOD * 100):
            if stop.wait(0.01):
                return
            pair.enemy.sendall(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    with pytest.raises(wire.DeadlinePassed):
        pair.channel.receive(started + 0.2)
    assert time.monotonic() - started < 2
    stop.set()
    thread.join()


def test_receive_whose_deadline_passed_can_be_repeated_and_loses_nothing(pair):
    whole = frame(GOOD) + frame(message_bytes("output", stream=2, data=b"second"))
    for cut in (3, 8, len(frame(GOOD)) - 1):
        pair.write(whole[:cut], ends=False)
        with pytest.raises(wire.DeadlinePassed):
            pair.channel.receive(time.monotonic() + 0.02)
        pair.write(whole[cut:], ends=False)
        deadline = time.monotonic() + 5
        assert pair.channel.receive(deadline).output.data == b"text"
        assert pair.channel.receive(deadline).output.data == b"second"


def test_deadline_in_the_past_still_takes_nothing_away(pair):
    pair.write(frame(GOOD), ends=False)
    with contextlib.suppress(wire.DeadlinePassed):
        pair.channel.receive(time.monotonic() - 1)
    if not pair.channel.has_buffered():
        with contextlib.suppress(wire.DeadlinePassed):
            assert pair.channel.receive(time.monotonic() + 1).output.data == b"text"


def test_many_frames_in_one_write_come_one_by_one(pair):
    pair.write(
        b"".join(frame(message_bytes("output", stream=n % 2 + 1, data=b"%d" % n)) for n in range(200)), ends=False
    )
    got = [pair.channel.receive(time.monotonic() + 5).output.data for _ in range(200)]
    assert got == [b"%d" % n for n in range(200)]
    assert not pair.channel.has_buffered()


# --- pointers


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


@pytest.mark.parametrize("name", POINTERS)
def test_pointers_that_lead_astray_are_a_wire_error_or_an_empty_value(pair, name):
    with contextlib.suppress(*MALFORMED):
        use(pair.channel, pair.receive(frame(POINTERS[name])))


@pytest.mark.parametrize("name", [name for name in POINTERS if name.startswith("text")])
def test_bad_text_does_not_end_this_process(pair, name):
    message = pair.receive(frame(POINTERS[name]))
    with contextlib.suppress(*MALFORMED):  # older pycapnp died of SIGSEGV here
        use(pair.channel, message)


def test_deep_nesting_in_a_value_is_a_wire_error(pair):
    body = b"\x91" * 10_000 + b"\xc0"
    message = pair.receive(frame(message_bytes("result", id=1, body=body)))
    with pytest.raises(wire.WireError, match=r"nest|deep|recursion|levels"):
        pair.channel.value_of(message.result, allow_calls=False)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
     b"\xc9\xff\xff\xff\xff\x01",
     b"\xc0\xc0", b"\xd9\x02\xff\xfe", b"\xc7\x00\x7f"],
    ids=lambda body: body.hex() or "empty",
)  # fmt: skip
def test_value_that_is_no_messagepack_is_a_wire_error(pair, body):
    message = pair.receive(frame(message_bytes("result", id=1, body=body)))
    with pytest.raises(wire.WireError):
        pair.channel.value_of(message.result, allow_calls=False)


def test_small_frame_does_not_become_much_memory(pair):
    # 100 KB that claim 2**29 elements and the same ones over and over.
    body = b"\xdd\x00\x01\x86\xa0" + b"\x90" * 100_000
    message = pair.receive(frame(message_bytes("result", id=1, body=body)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(pair.channel.value_of(message.result, allow_calls=False)) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 70 * 1024


def test_traversal_limit_counts_what_is_read_again(pair):
    message = pair.receive(frame(message_bytes("output", stream=1, data=b"x" * MiB)))
    with pytest.raises(Exception, match=r"(?i)traversal|limit"):
        for _ in range(100):
            bytes(message.output.data)


def test_call_in_a_result_is_refused(pair):
    import fxcell

    packed = values.pack(fxcell.zef_function(abs_of)(1))
    message = pair.receive(frame(message_bytes("result", id=1, body=packed.body)))
    with pytest.raises(wire.WireError):
        pair.channel.value_of(message.result, allow_calls=False)


def abs_of(number):
    return abs(number)


# --- descriptors


@contextlib.contextmanager
def opened(*descriptors):
    yield descriptors
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


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


def memory(size, seals=memfd._SEALS):
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


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
    with opened(memory(65536)) as fds, pytest.raises(wire.WireError, match=r"cap|bytes"):
        use(pair.channel, pair.receive(value_frame(lengths), fds))


# --- buffers behind the frame: large bytes


def behind(lengths, body=None):
    body = values.pack(b"x" * 65536).body if body is None else body
    return frame(message_bytes("result", id=1, body=body, buffers=[0, *lengths]))


def decoded(channel, message):
    return channel.value_of(message.result, allow_calls=False)


def test_buffers_behind_the_frame_are_the_value_that_sealed_memory_would_give(pair):
    packed = values.pack([b"a" * 65536, "between", b"b" * 5 * MiB])
    message = pair.receive(behind([65536, 5 * MiB], packed.body) + b"a" * 65536 + b"b" * 5 * MiB)
    assert decoded(pair.channel, message) == [b"a" * 65536, "between", b"b" * 5 * MiB]


def test_message_after_buffers_in_the_same_packet_is_the_next_one(pair):
    pair.enemy.sendall(behind([65536]) + b"q" * 65536 + frame(GOOD))
    assert decoded(pair.channel, pair.channel.receive(time.monotonic() + 5)) == b"q" * 65536
    assert pair.channel.receive(time.monotonic() + 5).which() == "output"


@pytest.mark.parametrize(
    "lengths",
    [
        [], [0], [65535], [65536, 65535], [65536, 0, 65536], [65536, 1], [0] * 100_000, [2**64 - 1], [2**63, 2**63],
        [65536] * 9000,
    ],
)  # fmt: skip
def test_lengths_behind_the_frame_that_nobody_sends_or_over_the_cap_are_refused(pair, lengths):
    with pytest.raises(wire.WireError, match=r"names buffers|over the cap"):
        use(pair.channel, pair.receive(behind(lengths)))


def test_descriptor_with_buffers_behind_the_frame_is_refused(pair):
    with opened(memory(65536)) as fds, pytest.raises(wire.WireError, match="needs 0"):
        use(pair.channel, pair.receive(behind([65536]), fds))


@pytest.mark.parametrize("count", [1, 4, 5, 50])
def test_descriptors_among_the_buffers_are_closed_and_refused(pair, count):
    reader, writer = os.pipe()
    with opened(reader, writer):
        pair.enemy.sendall(behind([MiB]) + b"x" * 1000)
        with pytest.raises(wire.DeadlinePassed):
            pair.channel.receive(time.monotonic() + 0.05)
        with pytest.raises(wire.WireError, match="descriptors"):
            pair.receive(b"x" * 1000, [reader] * count)
        os.close(reader)
        with pytest.raises(BrokenPipeError):  # no copy of the reading end is left
            os.write(writer, b"x")


@pytest.mark.parametrize("sent", [0, 1, 65535, 65536, 65537])
def test_end_among_the_buffers_is_an_end_in_the_middle_of_a_frame(pair, sent):
    with pytest.raises(wire.ChannelClosed) as closed:
        pair.receive(behind([65536, 65536]) + bytes(sent))
    assert closed.value.mid_frame


def test_receive_goes_on_among_the_buffers_after_a_deadline(pair):
    whole = behind([70000, 65536], values.pack([b"x" * 70000, b"y" * 65536]).body) + b"x" * 70000 + b"y" * 65536
    for start in range(0, len(whole), 9973):
        with pytest.raises(wire.DeadlinePassed):
            pair.channel.receive(time.monotonic() - 1)
        pair.enemy.sendall(whole[start : start + 9973])
        if start + 9973 < len(whole):
            with pytest.raises(wire.DeadlinePassed):
                pair.channel.receive(time.monotonic() + 0.002)
    assert decoded(pair.channel, pair.channel.receive(time.monotonic() + 5)) == [b"x" * 70000, b"y" * 65536]


def test_many_large_buffers_that_are_said_and_do_not_come_take_no_memory(pair):
    pair.enemy.sendall(behind([16 * MiB] * 7) + b"x" * 100)
    tracemalloc.start()
    before = resident()
    with pytest.raises(wire.DeadlinePassed):
        pair.channel.receive(time.monotonic() + 0.05)
    assert resident() - before < 8 * MiB
    assert tracemalloc.get_traced_memory()[0] < 17 * MiB  # the buffer whose first byte came, of addresses only
    tracemalloc.stop()


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_buffers_for_which_there_is_no_memory_are_a_memory_error_and_the_next_message_is_right(pair, monkeypatch):
    unfilled = memfd.unfilled
    monkeypatch.setattr(memfd, "unfilled", lambda size: unfilled(size) if size < MiB else unfilled(2**62))
    packed = values.pack([b"x" * 65536, b"y" * 2 * MiB, b"z" * 65536])
    data = b"x" * 65536 + b"y" * 2 * MiB + b"z" * 65536
    message = pair.receive(behind([65536, 2 * MiB, 65536], packed.body) + data + frame(GOOD), ends=False)
    with pytest.raises(MemoryError):
        decoded(pair.channel, message)


def test_bytes_that_came_behind_a_frame_are_not_copied(pair, monkeypatch):
    monkeypatch.setattr(memfd, "copied", None)
    message = pair.receive(behind([5 * MiB], values.pack(b"x" * 5 * MiB).body) + b"x" * 5 * MiB)
    assert decoded(pair.channel, message) == b"x" * 5 * MiB


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS])
def test_array_for_which_no_descriptor_can_be_had_travels_behind_its_frame(pair, monkeypatch, number):
    numpy = pytest.importorskip("numpy")

    def refuse(_parts):
        raise OSError(number, "refused")

    monkeypatch.setattr(memfd, "create", refuse)
    sender = wire.Channel(pair.enemy, max_value_bytes=64 * MiB)
    array = numpy.arange(20_000)
    thread = threading.Thread(target=sender.send_value, args=("result", 1, values.pack([array, b"x" * 100_000])))
    thread.start()
    first, second = decoded(pair.channel, pair.channel.receive(time.monotonic() + 5))
    thread.join()
    assert (first == array).all()
    assert not first.flags.writeable
    assert second == b"x" * 100_000


# --- the cap of values


def test_value_over_the_cap_is_refused_by_the_sender():
    pair = Pair(max_value_bytes=100_000)
    with pytest.raises(MessageTooLarge, match="message_bytes = 100000"):
        pair.channel.send_value("result", 1, values.pack(b"x" * 100_001))
    with pytest.raises(MessageTooLarge, match="message_bytes = 100000"):
        pair.channel.send_value("result", 1, values.pack(["x" * 99 for _ in range(1100)]))
    pair.close()


def test_value_over_the_cap_is_refused_by_the_receiver():
    pair = Pair(max_value_bytes=100_000)
    message = pair.receive(frame(message_bytes("result", id=1, body=values.pack(["x" * 99 for _ in range(1100)]).body)))
    with pytest.raises(wire.WireError, match="over the cap of 100000"):
        pair.channel.value_of(message.result, allow_calls=False)
    pair.close()


@pytest.mark.slow
def test_64_mebibytes_travel_there_and_back(pair):
    other = wire.Channel(pair.enemy, max_value_bytes=128 * MiB)
    data = os.urandom(MiB) * 64

    def give_back():
        there = other.value_of(other.receive(time.monotonic() + 5).run, allow_calls=False)
        other.send_value("result", 1, values.pack(there))

    thread = threading.Thread(target=give_back)
    thread.start()
    pair.channel.send_value("run", 1, values.pack({"data": data}), time.monotonic() + 5)
    back = pair.channel.value_of(pair.channel.receive(time.monotonic() + 5).result, allow_calls=False)
    thread.join()
    assert back == {"data": data}


# --- sending


def test_send_to_somebody_who_does_not_read_ends_at_the_deadline(pair):
    message = wire.Message.new_message()
    output = message.init("output")
    output.stream, output.data = 1, b"x" * 8 * MiB
    started = time.monotonic()
    with pytest.raises(wire.DeadlinePassed):
        pair.channel.send(message, deadline=started + 0.1)
    assert time.monotonic() - started < 2


def test_send_to_somebody_who_is_gone_is_a_broken_pipe(pair):
    pair.enemy.close()
    message = wire.Message.new_message(stop=None)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        pair.channel.send(message)


# --- anything at all


def receive_everything(data, fds=()):
    pair = Pair(max_value_bytes=MiB)
    sender = threading.Thread(target=pair.write, args=(data, fds))
    sender.start()
    try:
        while True:
            message = pair.channel.receive(time.monotonic() + 2)
            with contextlib.suppress(*MALFORMED):
                use(pair.channel, message)
    except (wire.WireError, wire.DeadlinePassed):
        pass  # ChannelClosed is one of the former
    finally:
        pair.channel.socket.shutdown(socket.SHUT_RDWR)
        sender.join()
        pair.close()


SEEDS = [
    GOOD,
    message_bytes("result", id=1, body=values.pack({"a": [1, 2.5, "x", b"y", None, (1, 2), {3}]}).body),
    message_bytes("effect", id=1, body=values.pack([[[["deep"]]]]).body),
    message_bytes("failure", id=1, kind="plugin", typeName="E", message="m", traceback="t", details=b"\x80"),
    message_bytes("hello", protocol=1, enforced=b"\x80"),
    *POINTERS.values(),
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=400))
def test_any_bytes_are_a_wire_error(data):
    receive_everything(data)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_any_body_in_a_good_frame_is_a_wire_error_or_a_message(body):
    receive_everything(frame(body))


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 64),
)
def test_damaged_messages_are_a_wire_error_or_a_message(seed, changes, cut):
    body = bytearray(seed)
    for place, byte in changes:
        body[place % len(body)] = byte
    receive_everything(frame(bytes(body[: len(body) - cut] if cut % 3 == 0 else body)))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_value_bytes_are_a_wire_error_or_a_value(body):
    receive_everything(frame(message_bytes("result", id=1, body=body)))


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=100), st.lists(st.integers(0, 2**64 - 1), max_size=4), st.integers(0, 6))
def test_any_buffers_with_any_descriptors_are_a_wire_error_or_a_value(body, lengths, count):
    with opened(memory(sum(lengths) if sum(lengths) < MiB else 4096)) as (descriptor,):
        receive_everything(frame(message_bytes("result", id=1, body=body, buffers=lengths)), [descriptor] * count)


def test_the_fuzzing_above_left_no_descriptor_open():
    assert select.select([], [], [], 0) == ([], [], [])
    with leaks.assert_nothing_left():
        for body in SEEDS:
            receive_everything(frame(body))
