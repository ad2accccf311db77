"""Anything at all on the wire: whatever bytes, lengths and descriptors come, it is a WireError or a message."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from fxcell.policies import values
from fxcell.sandbox import wire
from tests import leaks
from tests.sandbox.frames import GOOD, MALFORMED, POINTERS, MiB, Pair, frame, memory, message_bytes, opened, use


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


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_wire_error(data):
    receive_everything(data)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_body_in_a_good_frame_is_a_wire_error_or_a_message(body):
    receive_everything(frame(body))


@settings(max_examples=500)
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


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_value_bytes_are_a_wire_error_or_a_value(body):
    receive_everything(frame(message_bytes("result", id=1, body=body)))


@settings(max_examples=50)
@given(st.binary(max_size=100), st.lists(st.integers(0, 2**64 - 1), max_size=4), st.integers(0, 6))
def test_any_buffers_with_any_descriptors_are_a_wire_error_or_a_value(body, lengths, count):
    with opened(memory(sum(lengths) if sum(lengths) < MiB else 4096)) as (descriptor,):
        receive_everything(frame(message_bytes("result", id=1, body=body, buffers=lengths)), [descriptor] * count)


def test_the_fuzzing_above_left_no_descriptor_open():
    assert select.select([], [], [], 0) == ([], [], [])
    with leaks.assert_nothing_left():
        for body in SEEDS:
            receive_everything(frame(body))
