"""The codec under wrong bytes: a DecodeError, and nothing else."""

from __future__ import annotations

import contextlib
import math
import struct
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxcell.policies import calls
from fxcell.policies.errors import DecodeError
from fxcell.policies.values import Ext, decode_value, encode_value, pack_inline
from tests.policies.encoded import VALUE, ext


def pieces(*values) -> bytes:
    return msgspec.msgpack.encode(list(values))


MALFORMED = {
    "empty": b"",
    "unused byte": b"\xc1",
    "half a list": b"\x92\x01",
    "two values": b"\x01\x01",
    "huge list": b"\xdd\xff\xff\xff\xff",
    "huge text": b"\xdb\xff\xff\xff\xff",
    "huge extension": b"\xc9\xff\xff\xff\xff\x03",
    "bad utf-8": b"\xa1\xff",
    "table as key": b"\x81\x80\x01",
    "set as key": b"\x81" + ext(Ext.SET, b"\x90") + b"\x01",
    "extension 0": ext(0, b""),
    "extension 99": ext(99, b""),
    "extension -1 (a MessagePack timestamp) cut": b"\xd4\xff\x00",
    "extension -128": ext(-128, b""),
    "tuple of a text": ext(Ext.TUPLE, b"\xa1a"),
    "tuple of nothing": ext(Ext.TUPLE, b""),
    "set of lists": ext(Ext.SET, pieces([1])),
    "frozenset of a table": ext(Ext.FROZENSET, b"\x80"),
    "complex of 8 bytes": ext(Ext.COMPLEX, bytes(8)),
    "uuid of 15 bytes": ext(Ext.UUID, bytes(15)),
    "datetime month 13": ext(Ext.DATETIME, pieces(2020, 13, 1, 0, 0, 0, 0, 0, None)),
    "datetime too short": ext(Ext.DATETIME, pieces(2020, 1)),
    "datetime too long": ext(Ext.DATETIME, pieces(*[1] * 20)),
    "datetime fold 9": ext(Ext.DATETIME, pieces(2020, 1, 1, 0, 0, 0, 0, 9, None)),
    "datetime offset nan": ext(Ext.DATETIME, pieces(2020, 1, 1, 0, 0, 0, 0, 0, math.nan)),
    "datetime offset huge": ext(Ext.DATETIME, pieces(2020, 1, 1, 0, 0, 0, 0, 0, 1e300)),
    "datetime of a table": ext(Ext.DATETIME, b"\x80"),
    "datetime of none": ext(Ext.DATETIME, b"\xc0"),
    "time empty": ext(Ext.TIME, pieces()),
    "date of texts": ext(Ext.DATE, pieces("a", "b", "c")),
    "timedelta overflow": ext(Ext.TIMEDELTA, pieces(2**60, 0, 0)),
    "timedelta of one": ext(Ext.TIMEDELTA, pieces(1)),
    "decimal words": ext(Ext.DECIMAL, b"\xa3abc"),
    "decimal of a number": ext(Ext.DECIMAL, b"\x01"),
    "surrogates broken": ext(Ext.SURROGATE_TEXT, b"\xff\xff"),
    "buffer without buffers": ext(Ext.BUFFER, struct.pack("<I", 0)),
    "buffer short": ext(Ext.BUFFER, b"\0"),
    "array dtype object": ext(Ext.NDARRAY, pieces("|O", [1], bytes(8))),
    "array dtype structure": ext(Ext.NDARRAY, pieces("i4,i4", [1], bytes(8))),
    "array dtype number": ext(Ext.NDARRAY, pieces(5, [1], bytes(8))),
    "array dtype unit": ext(Ext.NDARRAY, pieces("<M8[parsec]", [1], bytes(8))),
    "array too short": ext(Ext.NDARRAY, pieces("<f8", [2], bytes(8))),
    "array too long": ext(Ext.NDARRAY, pieces("<f8", [1], bytes(9))),
    "array negative": ext(Ext.NDARRAY, pieces("<f8", [-1], bytes(8))),
    "array two negatives": ext(Ext.NDARRAY, pieces("<f8", [-1, -1], bytes(8))),
    "array huge and empty": ext(Ext.NDARRAY, pieces("<f8", [0, 2**62, 2**62], b"")),
    "array 33 dimensions": ext(Ext.NDARRAY, pieces("<f8", [1] * 33, bytes(8))),
    "array shape number": ext(Ext.NDARRAY, pieces("<f8", 1, bytes(8))),
    "array shape floats": ext(Ext.NDARRAY, pieces("<f8", [1.0], bytes(8))),
    "array buffer text": ext(Ext.NDARRAY, pieces("<f8", [1], "abcdefgh")),
    "array of two parts": ext(Ext.NDARRAY, pieces("<f8", [1])),
    "array of zero itemsize": ext(Ext.NDARRAY, pieces("|S0", [2**40], b"")),
    "array with an extension": ext(Ext.NDARRAY, b"\x93\xa3<f8\x91\x01" + ext(Ext.TUPLE, b"\x90")),
    "scalar of two": ext(Ext.NUMPY_SCALAR, pieces("<f8", [2], bytes(8))),
    "effect unknown": ext(Ext.EFFECT, pieces("Nope", {})),
    "effect named by a number": ext(Ext.EFFECT, pieces(5, {})),
    "effect field unknown": ext(Ext.EFFECT, pieces("Print", {"x": 1})),
    "effect field missing": ext(Ext.EFFECT, pieces("Print", {})),
    "effect field of another type": ext(Ext.EFFECT, pieces("Sleep", {"seconds": "1"})),
    "effect field named by a number": ext(Ext.EFFECT, pieces("Print", {1: 1})),
    "effect field named self": ext(Ext.EFFECT, pieces("Print", {"self": 1})),
    "effect field too large": ext(Ext.EFFECT, b"\x92\xa5Sleep\x81\xa7seconds" + ext(Ext.BIG_INTEGER, b"\x7f" * 600)),
    "effect of one part": ext(Ext.EFFECT, pieces("Print")),
    "effect base class": ext(Ext.EFFECT, pieces("Effect", {})),
    "worker of a number": ext(Ext.WORKER_PROCESS, b"\x01"),
    "policy of a list": ext(Ext.POLICY, b"\x90"),
    "policy unknown key": ext(Ext.POLICY, msgspec.msgpack.encode({"x": 1})),
    "policy bad limit": ext(Ext.POLICY, msgspec.msgpack.encode({"limits": {"cpu_s": math.nan}})),
    "policy bad effect": ext(Ext.POLICY, msgspec.msgpack.encode({"effects": {"Print": [1]}})),
    "call": ext(Ext.CALL, pieces("d", "n", [], {})),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bytes_are_a_decode_error(name):
    for data in (MALFORMED[name], b"\x91" + MALFORMED[name], ext(Ext.TUPLE, b"\x91" + MALFORMED[name])):
        with pytest.raises(DecodeError):
            decode_value(data, allow_calls=False)


MALFORMED_CALLS = [
    pieces("d"), pieces(1, "n", [], {}), pieces("d", 1, [], {}), pieces("d", "n", {}, {}), pieces("d", "n", [], []),
    pieces("d", "n", [], {1: 2}), b"\xc0", b"",
]  # fmt: skip


@pytest.mark.parametrize("parts", MALFORMED_CALLS, ids=range(len(MALFORMED_CALLS)))
def test_malformed_calls_are_a_decode_error(parts):
    with pytest.raises(DecodeError):
        decode_value(ext(Ext.CALL, parts), allow_calls=True)


def test_call_comes_back_only_where_calls_are_allowed():
    data = pack_inline(calls.zef_function(lambda x: x)(1)).body
    assert isinstance(decode_value(data, allow_calls=True), calls.Call)
    for wrapped in (
        data,
        b"\x91" + data,
        ext(Ext.TUPLE, b"\x91" + data),
        ext(Ext.EFFECT, b"\x92\xa5Print\x81\xa7content" + data),
    ):
        with pytest.raises(DecodeError, match="a call was sent"):
            decode_value(wrapped, allow_calls=False)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_any_bytes_are_a_value_or_a_decode_error(data):
    with contextlib.suppress(DecodeError):
        decode_value(data, allow_calls=True)


@given(VALUE, st.data())
@settings(max_examples=300)
def test_changed_bytes_are_a_value_or_a_decode_error(value, data):
    body = bytearray(encode_value(value))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        decode_value(bytes(body), allow_calls=True)


@given(code=st.sampled_from(list(Ext)), inner=VALUE)
@settings(max_examples=300)
def test_extension_around_any_value_is_a_value_or_a_decode_error(code, inner):
    with contextlib.suppress(DecodeError):
        decode_value(ext(code, encode_value(inner)), allow_calls=True, buffers=[memoryview(b"x")])


@given(VALUE, st.integers(0, 10_000))
def test_cut_bytes_are_a_decode_error(value, cut):
    body = encode_value(value)
    with pytest.raises(DecodeError):
        decode_value(body[: cut % len(body)], allow_calls=True)


def test_buffer_named_twice_is_a_decode_error():
    buffer = ext(Ext.BUFFER, struct.pack("<I", 0))
    array = ext(Ext.NDARRAY, b"\x93\xa3|u1\x91\x04" + buffer)
    for one, two in ((buffer, buffer), (buffer, array), (array, array), (ext(Ext.TUPLE, b"\x91" + buffer), array)):
        with pytest.raises(DecodeError, match="buffer 0 twice"):
            decode_value(b"\x92" + one + two, allow_calls=False, buffers=[memoryview(b"abcd")])
    assert decode_value(b"\x91" + array, allow_calls=False, buffers=[memoryview(b"abcd")])[0].tolist() == [
        97,
        98,
        99,
        100,
    ]


def test_decoding_imports_nothing():
    before = set(sys.modules)
    for data in MALFORMED.values():
        with pytest.raises(DecodeError):
            decode_value(data, allow_calls=False)
    assert set(sys.modules) - before == set()
