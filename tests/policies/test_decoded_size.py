"""A message that would take more memory than it may is refused before it is built; honest ones of many values pass."""

import os
import random
import struct
import subprocess
import sys
import uuid

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxcell.policies import decoded_size, values
from fxcell.policies.errors import DecodeError
from fxcell.policies.values import Ext

MiB = 1 << 20
BODY_BYTES = 16 * MiB - 4096
STRICT, MOST = decoded_size.budget_bytes(128 * MiB), decoded_size.budget_bytes(1 << 40)


def array(unit, count):
    return b"\xdd" + struct.pack(">I", count) + unit * count


def filled(unit):
    """A list of one part again and again, as large as a frame takes."""
    return array(unit, (BODY_BYTES - 5) // len(unit))


def decode(data, budget=MOST):
    return values.decode_value(data, allow_calls=False, budget_bytes=budget)


BOMBS = {
    "tables of one entry": b"\x81\x00\x00",
    "tables in tables": b"\x81\x00" * 150 + b"\x00",
    "empty tables": b"\x80",
    "empty lists": b"\x90",
    "lists in lists": b"\x91" * 150 + b"\x90",
    "integers of one byte": b"\xe0",
    "texts of three bytes": b"\xa3abc",
    "texts of one character": b"\xa4\xf0\x9f\x98\x80",
    "short bytes": b"\xc4\x02ab",
}


@pytest.mark.parametrize("unit", BOMBS.values(), ids=BOMBS)
def test_message_that_would_fill_memory_is_refused_before_it_is_built(unit):
    with pytest.raises(DecodeError, match="MiB once it is decoded"):
        decode(filled(unit), STRICT)


MEASURED = """
import struct, sys, msgspec
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
unit = bytes.fromhex(sys.argv[1])
count = 2_000_000 // len(unit)
data = b"\\xdd" + struct.pack(">I", count) + unit * count
before = resident()
value = msgspec.msgpack.decode(data)
print(resident() - before, len(data))
"""


@pytest.mark.parametrize("unit", BOMBS.values(), ids=BOMBS)
def test_control_memory_of_the_refused_is_what_was_reckoned(unit):
    # In a process of its own: what tests left free in this one would be used again.
    run = subprocess.run([sys.executable, "-c", MEASURED, unit.hex()], capture_output=True, text=True, check=True)
    used, size = map(int, run.stdout.split())
    assert used > 8 * size
    data = array(unit, 2_000_000 // len(unit))
    reckoned = (1 << 40) - decoded_size._walk(data, 1 << 40)
    assert 0.75 * used < reckoned < 3 * used


RANDOM = random.Random(20)
HONEST = {
    # Made when they are needed: millions of objects slow down whatever runs after this file.
    "a million floats": lambda: [RANDOM.uniform(-1e9, 1e9) for _ in range(1_000_000)],
    "a million integers": lambda: [RANDOM.randrange(-(2**31), 2**31) for _ in range(1_000_000)],
    "ten million small integers": lambda: [7, 0, 127, 1] * 2_500_000,
    "200,000 rows of five columns": lambda: [
        {"id": i, "x": i / 7, "y": -i / 3, "name": f"row {i}", "ok": i % 2 == 0} for i in range(200_000)
    ],
    "a million pairs": lambda: [[i, i + 1] for i in range(1_000_000)],
    "a million words": lambda: [f"word {i}" for i in range(1_000_000)],
    "one text of 15 MiB": lambda: "ß" + "text " * (3 * MiB),
    "random bytes": lambda: os.urandom(15 * MiB),
    "random bytes in pieces": lambda: [os.urandom(50_000) for _ in range(300)],
    "numbers by name": lambda: {f"key {i}": i * 1.5 for i in range(500_000)},
    "100,000 tuples": lambda: [(i, f"{i}", 1.5) for i in range(100_000)],
    "a set of 300,000": lambda: set(range(10**6, 10**6 + 300_000)),
    "100,000 identifiers": lambda: [uuid.UUID(int=i) for i in range(100_000)],
}


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_honest_value_of_many_parts_comes_back_even_where_memory_is_least(make):
    value = make()
    assert decode(values.encode_value(value), STRICT) == value


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(max_size=300)
    | st.sampled_from(["x" * 300, "y" * 70_000, b"z" * 70_000]),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20)
    | st.frozensets(st.integers()) | st.tuples(inner, inner) | st.complex_numbers(allow_nan=False) | st.uuids(),
    max_leaves=40,
)  # fmt: skip


@given(PLAIN)
@settings(max_examples=300)
def test_walk_ends_exactly_at_the_end_of_a_message(value):
    # A step too long or too short would take payloads for values.
    data = values.encode_value(value)
    whole = decoded_size._walk(data, 1 << 40)
    assert whole < 1 << 40
    assert decoded_size._walk(data + b"\xc0", 1 << 40) == whole - 24


@pytest.mark.parametrize("end", [b"\xd9", b"\xdf\xff", b"\xc7", b"\xd4", b"\xc7\x01", b"\xdb\xff\xff\xff\xff", b"\xc1"])
def test_message_cut_off_in_a_value_is_refused_by_the_decoder(end):
    with pytest.raises(DecodeError):
        decode(array(b"\xe0", 3_000_000) + end, MOST)


def test_set_of_many_members_counts_the_table_it_is_put_into():
    members = b"".join(b"\xce" + struct.pack(">I", 2**31 + i) for i in range(3_300_000))
    inner = b"\xdd" + struct.pack(">I", 3_300_000) + members
    with pytest.raises(DecodeError, match="MiB once it is decoded"):
        decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(int(Ext.SET), inner)), STRICT)


def test_budget_follows_from_the_workers_memory_within_bounds():
    assert decoded_size.budget_bytes(1) == 256 * MiB
    assert decoded_size.budget_bytes(300 * MiB) == 300 * MiB
    assert decoded_size.budget_bytes(2 << 30) == 512 * MiB
