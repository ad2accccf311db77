"""The codec: every type comes back as it went, and wrong bytes are a DecodeError and nothing else."""

from __future__ import annotations

import decimal
import enum
import math
import struct
import sys
import threading
import uuid

import numpy
import pytest
from hypothesis import given

from fxcell.policies import builtin
from fxcell.policies.effects import FX, Effect, WorkerProcess
from fxcell.policies.errors import DecodeError, EncodeError
from fxcell.policies.loader import load_policy
from fxcell.policies.values import MAX_DEPTH, OUT_OF_BAND_BYTES, Ext, decode_value, encode_value, pack
from tests.policies.encoded import ARRAY, VALUE, ext


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
    if isinstance(one, Effect):
        return same(one.__dict__, two.__dict__)
    if isinstance(one, decimal.Decimal):
        return str(one) == str(two)
    if isinstance(one, numpy.ndarray | numpy.generic):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return one == two


@given(VALUE)
def test_any_value_comes_back_as_it_went(value):
    assert same(there_and_back(value), value)
    assert same(out_of_band(value), value)


@given(ARRAY)
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
    [
        -(2**63),
        2**64 - 1,
        -(2**63) - 1,
        2**64,
        10**1000,
        -(10**1000),
        "\ud800",
        "a\udcffb",
        "é",
        "\0",
        {"\ud800": 1},
        -0.0,
    ],
    ids=lambda v: ascii(v)[:20],
)
def test_edges_come_back(value):
    assert same(there_and_back(value), value)
    assert same(there_and_back([[value]]), [[value]])


def test_equal_sets_give_equal_bytes():
    names = [f"n{i}" for i in range(50)]
    assert encode_value(set(names)) == encode_value(set(names))
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


def raw_depth(depth: int, form: str) -> bytes:
    if form == "list":
        return b"\x91" * depth + b"\xc0"
    if form == "dict":
        return b"\x81\xa1a" * depth + b"\xc0"
    data = b"\xc0"
    for _ in range(depth):
        data = (
            ext(Ext.TUPLE, b"\x91" + data)
            if form == "tuple"
            else ext(Ext.EFFECT, b"\x92\xa5Print\x81\xa7content" + data)
        )
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


def test_uuid_and_array_kinds_keep_their_type():
    value = {"u": uuid.UUID(int=5), "a": numpy.array(5), "s": numpy.int32(5)}
    again = there_and_back(value)
    assert [type(item) for item in again.values()] == [type(item) for item in value.values()]
