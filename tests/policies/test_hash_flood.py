"""Keys made to have equal hashes are refused before a table is built of them; honest tables of any size pass."""

import struct
import time

import msgspec
import pytest

from fxcell.policies import hash_flood, values
from fxcell.policies.errors import DecodeError
from fxcell.policies.values import Ext

MODULUS = 2**61 - 1  # of CPython's hash of numbers


def colliding(count):
    return [MODULUS * (i + 2**70) for i in range(count)]


def test_control_colliding_integers_make_a_table_slow():
    def seconds(count):
        start = time.perf_counter()
        set(colliding(count))
        return time.perf_counter() - start

    # Quadratic: 16 times the work, where a sound table has 4 times. Best of three, against noise.
    assert min(seconds(4000) for _ in range(3)) > 7 * min(seconds(1000) for _ in range(3))


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys], ids=["set", "frozenset", "dict"])
def test_keys_with_one_hash_are_refused(kind):
    data = values.encode_value(kind(colliding(2000)))
    with pytest.raises(DecodeError, match="same hash"):
        values.decode_value(data, allow_calls=False)


def test_plain_table_with_many_made_keys_is_refused():
    keys = [msgspec.msgpack.encode(msgspec.msgpack.Ext(int(Ext.BIG_INTEGER), k.to_bytes(20, "little"))) for k in colliding(50_000)]
    data = b"\xdf" + struct.pack(">I", len(keys)) + b"".join(key + b"\xc0" for key in keys)
    with pytest.raises(DecodeError, match="hashable"):  # built, it would take minutes: longer than a test may
        values.decode_value(data, allow_calls=False)


def test_collisions_nested_in_tuples_are_refused():
    data = values.encode_value([{(k, "x") for k in colliding(1500)}, "rest"])
    with pytest.raises(DecodeError, match="same hash"):
        values.decode_value(data, allow_calls=False)


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
    ],
    ids=["tuple keys", "tuples", "nested", "integers", "frozensets", "complex", "sets of tuples"],
)
def test_large_honest_value_comes_back_equal(value):
    assert values.decode_value(values.encode_value(value), allow_calls=False) == value


def test_held_value_never_leaves_the_codec():
    value = [[(i,), [(i,)], {"k": (i,)}] for i in range(hash_flood.FREE)]
    decoded = values.decode_value(values.encode_value(value), allow_calls=False)
    assert decoded == value
    assert {type(item) for row in decoded for item in row} == {tuple, list, dict}
