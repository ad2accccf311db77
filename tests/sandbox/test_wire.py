"""Frames from an enemy, and silence: bytes that are none end as WireError, and no wait is longer than its deadline."""

from __future__ import annotations

import contextlib
import resource
import threading
import time

import capnp
import pytest

from fxcell.sandbox import wire
from tests.sandbox.frames import GOOD, HEADER, MiB, Pair, frame, message_bytes, segments
from tests.sandbox.frames import pair as pair  # noqa: PLC0414 - the fixture


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
