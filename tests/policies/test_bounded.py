"""The repr of any value costs what is shown of it, not what there is; and what is short is shown as repr() shows it."""

import decimal
import tracemalloc
import uuid

import numpy
import pytest
from hypothesis import given, settings

from fxcell import FX, WorkerProcess, load_policy, zef_function
from fxcell.policies.bounded import bounded, bounded_text
from fxcell.policies.names import short
from tests.policies.encoded import HASHABLE, VALUE

MAX_LINE_BYTES = 64 * 1024  # of FX.Print
MEBIBYTES = 32
LARGE = b"\x01" * (MEBIBYTES << 20)
LARGE_TEXT = "\x01" * (MEBIBYTES << 20)


@zef_function
def call(*arguments, **named):
    return arguments, named


def peak_bytes(work, *arguments):
    tracemalloc.start()
    try:
        work(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_control_the_whole_repr_takes_several_times_the_value():
    assert peak_bytes(repr, (LARGE,)) > 4 * len(LARGE)


WRAPPED = {
    "bytes": lambda: LARGE,
    "text": lambda: LARGE_TEXT,
    "bytearray": lambda: bytearray(LARGE),
    "list": lambda: [LARGE],
    "tuple": lambda: (LARGE,),
    "set": lambda: {LARGE},
    "frozenset": lambda: frozenset({LARGE_TEXT}),
    "key": lambda: {LARGE: 1},
    "item": lambda: {"a": [({"b": LARGE_TEXT},)]},
    "effect": lambda: FX.Print(content=LARGE),
    "effect in a tuple": lambda: (FX.Log(message=LARGE_TEXT),),
    "call": lambda: call(LARGE, name=LARGE_TEXT),
    "many": lambda: tuple([LARGE] * 1000),
    "many members": lambda: tuple(range(1_000_000)),
    "many keys": lambda: dict.fromkeys(range(1_000_000)),
    "big integer": lambda: (1 << (8 * MEBIBYTES << 20),),
    "decimal": lambda: [decimal.Decimal("1" * 1_000_000)],
    "array": lambda: numpy.zeros(4_000_000),
    "array of many axes": lambda: [numpy.zeros((2,) * 22, "i1")],
    "array of one long text": lambda: (numpy.zeros(1, "S8000000"),),
    "numpy text": lambda: numpy.str_(LARGE_TEXT),
    "handle": lambda: [WorkerProcess(LARGE_TEXT)],
    "policy": lambda: {"p": load_policy("compute").replaced(name=LARGE_TEXT)},
}


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("shown", [short, lambda v: bounded_text(v, MAX_LINE_BYTES)], ids=["error text", "print"])
def test_large_value_in_any_container_costs_what_is_shown(make, shown):
    value = make()
    assert peak_bytes(shown, value) < 4 << 20
    assert len(shown(value)) <= (MAX_LINE_BYTES if shown is not short else 400)


@given(VALUE)
@settings(max_examples=300)
def test_value_that_fits_is_shown_as_repr_shows_it(value):
    try:
        whole = repr(value)
    except (ValueError, TypeError):  # an integer of over 4300 digits; a Decimal sNaN, which an effect cannot compare
        return
    if "FX." not in whole:  # an effect's own repr also writes inf so that it evaluates back
        assert bounded(value, 10**6) == (whole, False)


@given(VALUE | HASHABLE)
@settings(max_examples=300)
def test_text_cut_short_begins_as_the_whole_does(value):
    whole, _ = bounded(value, 10**6)
    text, cut = bounded(value, 20)
    assert len(text) <= 20
    assert cut == (len(whole) > 20)
    if not cut:
        assert text == whole


def test_effect_is_shown_without_the_fields_that_have_their_default():
    assert bounded(FX.Log(message="m"), 80)[0] == repr(FX.Log(message="m"))
    assert bounded(FX.Log(message="m", data={"a": 1}), 80)[0] == repr(FX.Log(message="m", data={"a": 1}))


def test_empty_and_single_containers_are_shown_as_python_writes_them():
    for value in (set(), frozenset(), (), (1,), [], {}, {1}, frozenset({1}), [()], {(): []}):
        assert bounded(value, 80) == (repr(value), False)


def test_list_that_holds_itself_ends():
    endless = []
    endless.append(endless)
    assert bounded(endless, 10**6)[0].count("[") < 200
    assert len(short(endless)) <= 81


def test_value_that_is_no_data_is_shown_by_its_own_repr():
    assert short(uuid) == f"{uuid!r}"[:80] + ("…" if len(repr(uuid)) > 80 else "")
    assert short(type("Bad", (), {"__repr__": lambda _: 1 / 0})()) == "<Bad>"
