"""The codec: every type comes back as it went, and wrong bytes are a DecodeError and nothing else."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import struct
import sys
import threading
import uuid

import msgspec
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fxcell.policies import builtin, calls
from fxcell.policies.effects import FX, WorkerProcess
from fxcell.policies.errors import DecodeError, EncodeError
from fxcell.policies.loader import load_policy
from fxcell.policies.values import (
    MAX_DEPTH,
    OUT_OF_BAND_BYTES,
    Ext,
    decode_value,
    encode_value,
    pack,
    pack_inline,
)


def there_and_back(value):
    return decode_value(encode_value(value), allow_calls=True)


def out_of_band(value):
    packed = pack(value)
    return decode_value(packed.body, allow_calls=True, buffers=[memoryview(bytes(b)) for b in packed.buffers])


def same(one, two) -> bool:
    """Equal in value and type at every depth; NaN equals NaN, 0.0 is not -0.0."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", two) or (math.isnan(one) and math.isnan(two))
    if isinstance(one, complex):
        return same(one.real, two.real) and same(one.imag, two.imag)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return len(one) == len(two) and all(map(same, one.items(), two.items()))
    if isinstance(one, decimal.Decimal):
        return str(one) == str(two)
    if isinstance(one, numpy.ndarray | numpy.generic):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return one == two


ZONE = st.none() | st.integers(-86399, 86399).map(lambda s: datetime.timezone(datetime.timedelta(seconds=s)))
HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(st.characters(codec=None), max_size=5)
    | st.binary()
    | st.datetimes(timezones=st.just(datetime.UTC))
    | st.dates()
    | st.uuids()
)
SCALAR = (
    HASHABLE
    | st.floats()
    | st.complex_numbers()
    | st.datetimes(timezones=ZONE)
    | st.times(timezones=ZONE)
    | st.timedeltas()
    | st.decimals()
    | st.frozensets(HASHABLE, max_size=4)
    | st.sets(HASHABLE, max_size=4)
)
DTYPES = (
    st_numpy.boolean_dtypes()
    | st_numpy.integer_dtypes(endianness="?")
    | st_numpy.floating_dtypes(endianness="?")
    | st_numpy.complex_number_dtypes(endianness="?")
    | st_numpy.datetime64_dtypes(endianness="?")
    | st_numpy.byte_string_dtypes(max_len=8)
    | st_numpy.unicode_string_dtypes(max_len=8, endianness="?")
)
ARRAY = st_numpy.arrays(DTYPES, st_numpy.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE | st.tuples(HASHABLE), inner, max_size=4)
        | st.builds(builtin.Print, content=inner)
        | st.builds(builtin.Log, message=st.text(), data=st.dictionaries(st.text(), inner, max_size=2))
    ),
    max_leaves=10,
)


@given(VALUE)
def test_any_value_comes_back_as_it_went(value):
    assert same(there_and_back(value), value)
    assert same(out_of_band(value), value)


@given(ARRAY)
@settings(deadline=None)
def test_any_array_comes_back_as_it_went(array):
    assert same(there_and_back(array), array)
    assert same(out_of_band([array])[0], array)


@pytest.mark.parametrize(
    "value",
    [
        numpy.float32(1.5), numpy.int64(-3), numpy.bool_(True), numpy.complex128(1j), numpy.datetime64("2020-01-01"),
        numpy.str_("é"), numpy.bytes_(b"x"), numpy.array(5), numpy.zeros((0, 3)), numpy.arange(6).reshape(2, 3).T,
        numpy.arange(10)[::-2], numpy.asfortranarray(numpy.ones((2, 3))),
    ],
    ids=lambda v: f"{type(v).__name__} {v!r}"[:40],
)  # fmt: skip
def test_numpy_values_come_back(value):
    assert same(there_and_back(value), value)


def test_large_array_is_a_read_only_view_of_its_buffer():
    packed = pack(numpy.zeros(OUT_OF_BAND_BYTES, dtype="u1"))
    assert len(packed.buffers) == 1
    assert len(packed.body) < 100
    array = decode_value(packed.body, allow_calls=False, buffers=packed.buffers)
    assert not array.flags.owndata
    assert same(array, numpy.zeros(OUT_OF_BAND_BYTES, dtype="u1"))


def test_decoded_array_from_the_body_is_read_only():
    assert not there_and_back(numpy.zeros(3)).flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, OUT_OF_BAND_BYTES - 1, OUT_OF_BAND_BYTES, OUT_OF_BAND_BYTES + 1])
def test_bytes_are_set_aside_from_the_threshold_on(kind, size):
    data = bytes(size)
    packed = pack([kind(data)])
    assert len(packed.buffers) == (size >= OUT_OF_BAND_BYTES)
    assert packed.total_bytes >= size
    assert decode_value(packed.body, allow_calls=False, buffers=packed.buffers) == [data]
    assert encode_value([kind(data)]) == encode_value([data])


def test_strided_memory_is_copied_in_order():
    view = memoryview(bytes(range(256)) * 1024)[::2]
    assert decode_value(pack(view).body, allow_calls=False, buffers=pack(view).buffers) == view.tobytes()
    assert there_and_back(view) == view.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        builtin.Now(), FX.Print(content=(1, {2})), WorkerProcess("w1"), load_policy("network"),
        FX.StartWorkerProcess(policy=load_policy("compute")),
        FX.SendCommandToWorkerProcess(process=WorkerProcess("w"), command=[FX.Now(), 1]),
    ],
    ids=lambda v: repr(v)[:30],
)  # fmt: skip
def test_own_values_come_back(value):
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [-(2**63), 2**64 - 1, -(2**63) - 1, 2**64, 10**1000, -(10**1000), "\ud800", "a\udcffb", "é", "\0", {"\ud800": 1}, -0.0],
    ids=lambda v: ascii(v)[:20],
)
def test_edges_come_back(value):
    assert same(there_and_back(value), value)
    assert same(there_and_back([[value]]), [[value]])


def test_equal_sets_give_equal_bytes():
    names = [f"n{i}" for i in range(50)]
    assert encode_value(set(names)) == encode_value(set(reversed(names)))
    assert encode_value({1: frozenset(names)}) == encode_value({1: frozenset(reversed(names))})


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    __slots__ = ()


class Items(list):
    pass


class Point(tuple):
    __slots__ = ()


class Plain:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED, Word("x"), Items(), Point(), Plain(), Plain, len, sys, threading.Lock(), open, object(), ..., range(3),
        iter([]), {}.keys(), numpy.array([object()]), numpy.zeros(1, dtype=[("a", "i4")]), ValueError("x"), b"".hex,
    ],
    ids=lambda v: repr(v)[:20].partition(" at 0x")[0],
)  # fmt: skip
def test_other_types_are_errors_that_name_the_place(value):
    with pytest.raises(EncodeError, match="the value itself"):
        encode_value(value)
    with pytest.raises(EncodeError, match=r"\['a'\]\[1\]"):
        encode_value({"a": [1, value]})
    with pytest.raises(EncodeError, match=r"\['b'\]\[1\]"):
        pack({"b": [(), value]})


def test_bad_key_is_named():
    with pytest.raises(EncodeError, match=r"\['a'\] key"):
        encode_value({"a": {Plain: 1}})


def nested(depth: int, wrap):
    value = None
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = {
    "list": lambda v: [v],
    "dict": lambda v: {"a": v},
    "tuple": lambda v: (v,),
    "effect": lambda v: FX.Print(content=v),
    "frozenset": lambda v: frozenset([v]),
}


@pytest.mark.parametrize("wrap", ["list", "dict"])
def test_depth_up_to_the_limit_comes_back(wrap):
    value = nested(MAX_DEPTH, WRAPS[wrap])
    assert there_and_back(value) == value
    with pytest.raises(EncodeError, match="nested deeper"):
        encode_value([value])


@pytest.mark.parametrize("wrap", ["tuple", "effect", "frozenset"])
def test_what_can_be_encoded_can_be_decoded(wrap):
    depth = 0
    try:
        for depth in range(1, MAX_DEPTH + 2):
            data = encode_value(nested(depth, WRAPS[wrap]))
    except EncodeError:
        pass
    assert 50 < depth <= MAX_DEPTH + 1
    assert decode_value(data, allow_calls=False) == nested(depth - 1, WRAPS[wrap])


@pytest.mark.parametrize("wrap", WRAPS)
def test_deeper_values_are_encode_errors(wrap):
    with pytest.raises(EncodeError):
        encode_value(nested(400, WRAPS[wrap]))


def test_value_that_contains_itself_is_an_encode_error():
    value = []
    value.append(value)
    with pytest.raises(EncodeError):
        encode_value(value)
    table = {}
    table["self"] = [table, {1}]
    with pytest.raises(EncodeError):
        encode_value(table)


def ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(int(code), data))


def raw_depth(depth: int, form: str) -> bytes:
    if form == "list":
        return b"\x91" * depth + b"\xc0"
    if form == "dict":
        return b"\x81\xa1a" * depth + b"\xc0"
    data = b"\xc0"
    for _ in range(depth):
        data = ext(Ext.TUPLE, b"\x91" + data) if form == "tuple" else ext(Ext.EFFECT, b"\x92\xa5Print\x81\xa7content" + data)
    return data


@pytest.mark.parametrize("form", ["list", "dict", "tuple", "effect"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 1000, 3000, 100_000])
def test_deep_bytes_are_a_decode_error(form, depth):
    if form in ("tuple", "effect") and depth > 3000:
        depth = 5000
    with pytest.raises(DecodeError):
        decode_value(raw_depth(depth, form), allow_calls=False)


def test_depth_hidden_in_extensions_adds_up():
    data = b"\x91" * 150 + ext(Ext.TUPLE, b"\x91" + b"\x91" * 60 + b"\xc0")
    with pytest.raises(DecodeError, match="nested deeper"):
        decode_value(data, allow_calls=False)


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
    for wrapped in (data, b"\x91" + data, ext(Ext.TUPLE, b"\x91" + data), ext(Ext.EFFECT, b"\x92\xa5Print\x81\xa7content" + data)):
        with pytest.raises(DecodeError, match="a call was sent"):
            decode_value(wrapped, allow_calls=False)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_any_bytes_are_a_value_or_a_decode_error(data):
    try:
        decode_value(data, allow_calls=True)
    except DecodeError:
        pass


@given(VALUE, st.data())
@settings(max_examples=300)
def test_changed_bytes_are_a_value_or_a_decode_error(value, data):
    body = bytearray(encode_value(value))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_value(bytes(body), allow_calls=True)
    except DecodeError:
        pass


@given(code=st.sampled_from(list(Ext)), inner=VALUE)
@settings(max_examples=300)
def test_extension_around_any_value_is_a_value_or_a_decode_error(code, inner):
    try:
        decode_value(ext(code, encode_value(inner)), allow_calls=True, buffers=[memoryview(b"x")])
    except DecodeError:
        pass


@given(VALUE, st.integers(0, 10_000))
def test_cut_bytes_are_a_decode_error(value, cut):
    body = encode_value(value)
    with pytest.raises(DecodeError):
        decode_value(body[: cut % len(body)], allow_calls=True)


def test_decoding_imports_nothing():
    before = set(sys.modules)
    for data in MALFORMED.values():
        with pytest.raises(DecodeError):
            decode_value(data, allow_calls=False)
    assert set(sys.modules) - before == set()


def test_uuid_and_array_kinds_keep_their_type():
    value = {"u": uuid.UUID(int=5), "a": numpy.array(5), "s": numpy.int32(5)}
    again = there_and_back(value)
    assert [type(item) for item in again.values()] == [type(item) for item in value.values()]
