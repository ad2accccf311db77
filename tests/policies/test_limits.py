"""Limits: every one finite, in range, and written with its unit."""

from __future__ import annotations

import dataclasses
import math

import pytest

from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import RANGES, TOML_KEYS, Limits, MiB, limit_from_toml, parse_bytes, parse_seconds

NAMES = [field.name for field in dataclasses.fields(Limits)]
SECONDS = [name for name in NAMES if name.endswith("_s")]
COUNTS = [name for name in NAMES if not name.endswith("_s")]


def test_defaults_are_finite_and_in_their_range():
    for name, value in Limits().to_data().items():
        assert math.isfinite(value)
        assert RANGES[name].low <= value <= RANGES[name].high


def test_every_limit_has_a_range_and_a_toml_key():
    assert list(RANGES) == NAMES
    assert sorted(TOML_KEYS.values()) == sorted(NAMES)
    assert set(TOML_KEYS) == {
        "memory", "cpu", "wall", "start", "processes", "threads", "open_files", "file", "scratch", "scratch_files",
        "message", "output", "effects", "stack",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value", [None, True, "1", -1, -0.5, math.nan, math.inf, -math.inf, [], 10**400], ids=lambda v: repr(v)[:8]
)
def test_unusable_value_is_an_error_naming_limit_and_range(name, value):
    with pytest.raises(PolicyError) as caught:
        Limits(**{name: value})
    assert f"limits.{name} must be" in str(caught.value)
    assert f"{RANGES[name].low:,} to {RANGES[name].high:,}" in str(caught.value)


@pytest.mark.parametrize("name", COUNTS)
def test_fraction_for_a_count_is_an_error(name):
    with pytest.raises(PolicyError, match=f"limits.{name}"):
        Limits(**{name: float(RANGES[name].high)})


@pytest.mark.parametrize("name", [n for n in NAMES if RANGES[n].low > 0])
def test_zero_is_an_error_where_it_makes_no_sense(name):
    with pytest.raises(PolicyError, match=f"limits.{name}"):
        Limits(**{name: 0})


@pytest.mark.parametrize("name", NAMES)
def test_ends_of_the_range_are_accepted_and_one_beyond_is_not(name):
    low, high = RANGES[name]
    for edge in (low, high):
        assert getattr(Limits(**{name: edge}), name) == edge
    with pytest.raises(PolicyError):
        Limits(**{name: high + 1})


@pytest.mark.parametrize("name", SECONDS)
def test_whole_seconds_become_float(name):
    assert type(getattr(Limits(**{name: 5}), name)) is float
    assert Limits(**{name: 5}) == Limits(**{name: 5.0})


def test_data_round_trip():
    limits = Limits(memory_bytes=300 * MiB, cpu_s=0.5)
    assert Limits.from_data(limits.to_data()) == limits


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_data_that_is_no_table_is_an_error(data):
    with pytest.raises(PolicyError, match="must be a table"):
        Limits.from_data(data)


def test_unknown_limit_names_the_nearest():
    with pytest.raises(PolicyError, match="did you mean 'memory_bytes'"):
        Limits.from_data({"memory_byte": 1})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0 B", 0), ("1 B", 1), ("1 KiB", 1024), ("256 MiB", 256 * 2**20), ("1.5 GiB", 1536 * 2**20), ("2 TiB", 2**41),
        ("3 kB", 3000), ("3 MB", 3_000_000), ("5MiB", 5 * 2**20), ("999999999999999 B", 999999999999999),
    ],
)  # fmt: skip
def test_sizes_with_units(text, count):
    assert parse_bytes(text) == count
    assert type(parse_bytes(text)) is int


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10 s", 10.0), ("500 ms", 0.5), ("300 ms", 0.3), ("2 min", 120.0), ("1.5 h", 5400.0), ("1s", 1.0)],
)
def test_times_with_units(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "1", "MiB", "1  MiB", " 1 MiB", "1 MiB ", "-1 MiB", "+1 MiB", "1e3 MiB", "1_0 MiB", "١ MiB", "1 mib", "1 Mib",
     "0x10 B", "1 MiB\n", "nan s", "inf B", "1.5 B", "1 M", "9999999999999999 B"],
)  # fmt: skip
def test_odd_sizes_are_errors(text):
    with pytest.raises(PolicyError):
        parse_bytes(text)


def test_wrong_case_of_a_unit_names_the_right_one():
    with pytest.raises(PolicyError, match="did you mean 'MiB'"):
        parse_bytes("1 mib")


def test_missing_unit_says_how_to_write_it():
    with pytest.raises(PolicyError, match=r'limits.memory = 256 has no unit; write it as "256 MiB"'):
        limit_from_toml("memory", 256)
    with pytest.raises(PolicyError, match=r'limits.wall = 30 has no unit; write it as "30 s"'):
        limit_from_toml("wall", 30)


def test_toml_value_out_of_range_is_an_error():
    with pytest.raises(PolicyError, match=r"limits.memory_bytes must be"):
        limit_from_toml("memory", "1 B")
    with pytest.raises(PolicyError, match=r"limits.processes must be"):
        limit_from_toml("processes", "2")


def test_python_name_in_toml_says_the_toml_name():
    with pytest.raises(PolicyError, match="write 'memory', with the unit in the value"):
        limit_from_toml("memory_bytes", 1)


def test_unknown_toml_key_names_the_nearest():
    with pytest.raises(PolicyError, match="did you mean 'memory'"):
        limit_from_toml("memry", "1 MiB")
