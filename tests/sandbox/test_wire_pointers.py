"""Messages from an enemy: pointers that lead astray, bad text, and values that are no MessagePack, too deep or too large."""

from __future__ import annotations

import contextlib
import resource

import pytest

from fxcell.policies import values
from fxcell.sandbox import wire
from tests.sandbox.frames import MALFORMED, POINTERS, MiB, frame, message_bytes, use
from tests.sandbox.frames import pair as pair  # noqa: PLC0414 - the fixture


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
