"""Tables whose keys are native MessagePack arrays, made to have one hash: refused before they are built."""

import random
import struct
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcell.policies import array_keys, builtin, policy, values
from fxcell.policies.errors import DecodeError
from fxcell.policies.values import Ext

assert builtin.Now is not policy.Policy  # effects and policies are known to the codec once their modules are imported

_PRIME_1, _PRIME_2, _PRIME_5 = 11400714785074694791, 14029467366897019727, 2870177450012600261  # CPython's tuple hash
_SIZE = 2**64
encode = msgspec.msgpack.encode


def turned(number, bits):
    return (number << bits | number >> 64 - bits) % _SIZE


def colliding(count):
    """Pairs of integers whose tuples all have one hash: the second one is computed backwards from the first."""
    pairs, first = [], 0
    while len(pairs) < count:
        first += 1
        lane = turned((_PRIME_5 + first * _PRIME_2) % _SIZE, 31) * _PRIME_1 % _SIZE
        second = (turned(12345 * pow(_PRIME_1, -1, _SIZE) % _SIZE, 33) - lane) * pow(_PRIME_2, -1, _SIZE) % _SIZE
        if hash(second) == second:
            pairs.append((first, second))
    return pairs


def table(keys, mark=b"\xdf", form=">I"):
    return mark + struct.pack(form, len(keys)) + b"".join(encode(key) + b"\xc0" for key in keys)


def listed(*parts):
    return b"\xdd" + struct.pack(">I", len(parts)) + b"".join(parts)


def ext(code, data):
    return encode(msgspec.msgpack.Ext(int(code), data))


def test_control_msgspec_takes_quadratic_time_for_them():
    def seconds(count):
        data = table(colliding(count))
        start = time.perf_counter()
        assert len(msgspec.msgpack.decode(data)) == count
        return time.perf_counter() - start

    # 16 times the work, where a sound table has 4 times. Best of three, against noise.
    assert min(seconds(2000) for _ in range(3)) > 7 * min(seconds(500) for _ in range(3))


MADE = table(colliding(2000))
FLOATS = encode([random.Random(1).random() for _ in range(5000)])  # holds every byte there is
PLACES = {
    "alone": MADE,
    "with a length of 16 bits": table(colliding(2000), b"\xde", ">H"),
    "after floats": listed(FLOATS, MADE),
    "below small tables": b"\x81\xa1x" * 50 + MADE,
    "after a long text": listed(encode("x" * 70_000), MADE),
    "behind another key": b"\xdf" + struct.pack(">I", 2001) + b"\x01\x02" + MADE[5:],
    "in a large table": b"\xdf" + struct.pack(">I", 500) + encode(1) + MADE + encode(2) * 998,
    "in an effect": ext(Ext.EFFECT, listed(encode("Print"), b"\x81\xa7content" + MADE)),
    "in a tuple": ext(Ext.TUPLE, listed(MADE)),
    "in an array of numbers": ext(Ext.NDARRAY, listed(encode("<f8"), MADE, encode(b""))),
    "as a key": b"\x81" + listed(MADE) + b"\xc0",
}


@pytest.mark.parametrize("place", PLACES)
def test_table_of_arrays_with_one_hash_is_refused_at_once(place):
    with pytest.raises(DecodeError, match="an array is a key of a table"):
        values.decode_value(PLACES[place], allow_calls=False)


def test_depth_without_end_is_refused_and_takes_no_memory():
    with pytest.raises(DecodeError):
        values.decode_value(b"\xde\xff\xff\x00" * 300_000 + b"\x90" * 500, allow_calls=False)


HONEST = {
    "floats": [random.Random(2).random() for _ in range(20_000)],
    "integers": [random.Random(3).randrange(-(2**62), 2**62) for _ in range(20_000)],
    "records": [{"a": i, "b": i / 7, "c": str(i), "d": [i] * 3} for i in range(3000)],
    "lists by number": {i: [i / 7] for i in range(5000)},
    "by tuples": {(i, i / 7): [i] for i in range(3000)},
    "texts and bytes": {f"{i:040}": [f"{i:300}", bytes([i % 256]) * 40] for i in range(2000)},
    "tables of tables": {i: {j: [j] for j in range(40)} for i in range(200)},
}


@pytest.mark.parametrize("what", HONEST)
def test_honest_values_of_many_parts_come_back(what):
    assert values.decode_value(values.encode_value(HONEST[what]), allow_calls=False) == HONEST[what]


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=40)
scalars |= st.binary(max_size=300)
keys = st.integers(0, 2**64 - 1) | st.text(max_size=40) | st.tuples(st.integers(0, 9), st.text(max_size=3))
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(keys, inner, max_size=20), max_leaves=60
)


def has_array_key(value):
    """As a reader of the value would say it."""
    if isinstance(value, dict):
        return any(isinstance(key, tuple) or has_array_key(item) for key, item in value.items())
    return isinstance(value, list) and any(map(has_array_key, value))


@given(nested)
def test_arrays_as_keys_are_found_wherever_they_are_and_nowhere_else(value):
    try:
        end = array_keys._after_table(data := encode(value), 0)
    except DecodeError:
        assert has_array_key(value)
    else:
        assert end == len(data)
        assert not has_array_key(value)


@given(st.lists(nested, min_size=1, max_size=3))
def test_a_table_of_arrays_is_found_behind_any_values(before):
    data = listed(*map(encode, before), MADE)
    with pytest.raises(DecodeError):
        array_keys.check(data)
