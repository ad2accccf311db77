"""Large values on the wire: buffers behind the frame, as many as it names and in its own time, and the cap of values."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
import tracemalloc

import pytest

from fxcell.policies import values
from fxcell.policies.errors import MessageTooLarge
from fxcell.sandbox import wire
from fxcell.sandbox.kernel import memfd
from tests.sandbox.frames import GOOD, MiB, Pair, frame, memory, message_bytes, opened, use
from tests.sandbox.frames import pair as pair  # noqa: PLC0414 - the fixture

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


@pytest.mark.parametrize("lengths", [[1] * 65536, [65535, 1], [65536, 0]], ids=["a million", "short", "empty"])
def test_buffers_beside_a_frame_that_nobody_sets_aside_are_refused(pair, lengths):
    data = frame(message_bytes("result", id=1, body=values.pack(b"x" * 65536).body, buffers=lengths))
    with opened(memory(65536)) as fds, pytest.raises(wire.WireError, match="names buffers"):
        use(pair.channel, pair.receive(data, fds))


def test_buffer_of_several_dimensions_is_sent_whole(pair):
    square = memoryview(bytes(range(256)) * 4096).cast("B", (1024, 1024))
    sender = wire.Channel(pair.enemy, max_value_bytes=64 * MiB)
    thread = threading.Thread(target=sender.send_value, args=("result", 1, values.pack(square), time.monotonic() + 5))
    thread.start()
    assert decoded(pair.channel, pair.channel.receive(time.monotonic() + 5)) == square.tobytes()
    thread.join()


def test_descriptor_for_which_this_process_has_no_room_is_not_the_senders_fault(pair):
    data = frame(message_bytes("result", id=1, body=b"\xc0", buffers=[65536]))
    with opened(memory(65536)) as fds:
        pair.write(data, fds)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        copies = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, before[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    copies.append(os.dup(pair.channel.fileno()))
            with pytest.raises(OSError, match="Too many open files"):
                pair.channel.receive(time.monotonic() + 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for descriptor in copies:
                os.close(descriptor)


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
