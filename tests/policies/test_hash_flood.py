"""Messages made to be slow or large are refused before they are; honest ones of any shape pass."""

import decimal
import struct
import sys
import time
import uuid

import msgspec
import pytest

from fxcell.policies import builtin, hash_flood, policy, values
from fxcell.policies.errors import DecodeError, EncodeError
from fxcell.policies.values import Ext

MODULUS = 2**61 - 1  # of CPython's hash of numbers


assert builtin.Now is not policy.Policy  # effects and policies are known to the codec once their modules are imported


def colliding(count):
    return [MODULUS * (i + 2**70) for i in range(count)]


def ext(code, data):
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(int(code), data))


def array(items):
    return b"\xdd" + struct.pack(">I", len(items)) + b"".join(items)


def big(number):
    return ext(Ext.BIG_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def decode(data):
    return values.decode_value(data, allow_calls=False)


def test_control_colliding_integers_make_a_table_slow():
    def seconds(count):
        start = time.perf_counter()
        set(colliding(count))
        return time.perf_counter() - start

    # Quadratic: 16 times the work, where a sound table has 4 times. Best of three, against noise.
    assert min(seconds(4000) for _ in range(3)) > 7 * min(seconds(1000) for _ in range(3))


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys], ids=["set", "frozenset", "dict"])
def test_keys_with_one_hash_are_not_even_sent(kind):
    with pytest.raises(EncodeError, match="same hash"):
        values.encode_value(kind(colliding(2000)))


@pytest.mark.parametrize("code", [Ext.SET, Ext.FROZENSET])
def test_set_of_members_with_one_hash_is_refused(code):
    with pytest.raises(DecodeError, match="same hash"):
        decode(ext(code, array([big(key) for key in colliding(2000)])))


def test_table_of_keys_with_one_hash_is_refused():
    with pytest.raises(DecodeError, match="same hash"):
        decode(ext(Ext.TABLE, array([part for key in colliding(2000) for part in (big(key), b"\xc0")])))


def test_plain_table_with_made_keys_is_refused():
    keys = [big(key) for key in colliding(50_000)]
    data = b"\xdf" + struct.pack(">I", len(keys)) + b"".join(key + b"\xc0" for key in keys)
    with pytest.raises(DecodeError, match="hashable"):  # built, it would take minutes: longer than a test may
        decode(data)


def test_collisions_nested_in_tuples_are_refused():
    pairs = [ext(Ext.TUPLE, array([big(key), b"\xa1x"])) for key in colliding(1500)]
    with pytest.raises(DecodeError, match="same hash"):
        decode(array([ext(Ext.SET, array(pairs)), b"\x01"]))


def test_large_integer_beside_a_decimal_of_its_hash_is_refused():
    number = 1 << 3_200_000
    number = number - number % MODULUS + 1
    assert hash(number) == hash(decimal.Decimal(1))  # as a set, comparing the two takes 20 s
    one = ext(Ext.DECIMAL, b"\xa11")
    for members in ([big(number), one], [ext(Ext.TUPLE, array([big(number)])), one]):
        with pytest.raises(DecodeError, match="is a key"):
            decode(ext(Ext.SET, array(members)))


def test_decimal_of_many_digits_as_a_key_is_refused():
    with pytest.raises(DecodeError, match="digits"):
        decode(ext(Ext.SET, array([ext(Ext.DECIMAL, msgspec.msgpack.encode("1" * 5000))])))


def test_effect_as_a_key_is_refused():
    with pytest.raises(DecodeError, match="key"):
        decode(ext(Ext.SET, array([ext(Ext.EFFECT, b"\x92\xa3Now\x80")])))


@pytest.mark.parametrize(
    ("item", "count", "why"),
    [
        (ext(Ext.SET, b"\x90"), hash_flood.EXTENSIONS_MAX + 1, "not plain"),
        (ext(Ext.UUID, b"x" * 16), hash_flood.EXTENSIONS_MAX + 1, "not plain"),
        (ext(Ext.POLICY, b"\x80"), hash_flood.OWN_MAX + 1, "policies"),
        (ext(Ext.EFFECT, b"\x92\xa3Now\x80"), hash_flood.OWN_MAX + 1, "effects"),
    ],
    ids=["sets", "uuids", "policies", "effects"],
)
def test_too_many_costly_values_are_refused(item, count, why):
    with pytest.raises(DecodeError, match=why):
        decode(array([item] * count))


def test_deep_message_is_refused_in_a_host_that_raised_its_recursion_limit():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(DecodeError):  # not the end of this process
            decode(b"\x91" * 5_000_000 + b"\x01")
        assert decode(values.encode_value([[i] for i in range(5000)]))[4999] == [4999]
    finally:
        sys.setrecursionlimit(before)


def test_tables_in_tables_are_walked_once():
    inner = array([b"\x01"] * 300_000)
    ids = array([ext(Ext.UUID, uuid.uuid4().bytes) for _ in range(1100)])
    data = array([inner, ids])
    for _ in range(60):
        data = ext(Ext.TABLE, array([b"\xa1k", data]))
    value = decode(data)  # once per level it would be 60 walks over 300,000 members
    for _ in range(60):
        value = value["k"]
    assert len(value[0]) == 300_000


@pytest.mark.parametrize(
    "value",
    [
        {(i, str(i)): i for i in range(5000)},
        [(i, (i, i)) for i in range(5000)],
        {"a": [{"b": (i, 2**100 + i)} for i in range(3000)]},
        {i: float(i) for i in range(5000)},
        {frozenset({i, i + 1}) for i in range(4000)},
        [complex(i, 1) for i in range(5000)],
        [{(i,)} for i in range(3000)],
        {2**64 + i: 2**200_000 for i in range(3)},
        {decimal.Decimal(1), 2, uuid.UUID(int=3), (4, decimal.Decimal(5))},
        {(1, 2): {(3, 4): [(5, {6})]}},
        [float(i) / 7 for i in range(300_000)],
    ],
    ids=[
        "tuple keys", "tuples", "nested", "integers", "frozensets", "complex", "sets of tuples", "large", "mixed", "keys in keys",
        "floats",
    ],
)
def test_honest_value_comes_back_equal(value):
    assert decode(values.encode_value(value)) == value


def test_held_value_never_leaves_the_codec():
    value = [[(i,), [(i,)], {"k": (i,)}] for i in range(1000)]
    decoded = decode(values.encode_value(value))
    assert decoded == value
    assert {type(item) for row in decoded for item in row} == {tuple, list, dict}
