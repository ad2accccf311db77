"""FX values: built with checks, immutable, equal by content, and readable back from repr and bytes."""

from __future__ import annotations

import contextlib
import copy
import datetime
import decimal
import enum
import pickle
import re
import tracemalloc
import uuid
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcell.policies import builtin, decoding, encoding
from fxcell.policies.calls import zef_function
from fxcell.policies.effects import FX, Effect, UnknownEffectError, WorkerProcess, is_own
from fxcell.policies.errors import DecodeError, EffectError
from fxcell.policies.loader import load_policy
from fxcell.policies.running import Runner
from fxcell.policies.values import decode_value, encode_value


class Order(Effect):
    """An effect with every kind of field."""

    label: ClassVar[str] = "no field"
    name: str
    count: int = 1
    weight: float | None = None
    tags: list[str] = []
    table: dict[str, int] = {}
    data: bytes = b""
    urgent: bool = False
    pair: tuple[int, str] = (0, "")
    numbers: tuple[int, ...] = ()
    words: frozenset[str] = frozenset()
    speed: Literal["slow", "fast", 1] = "slow"
    anything: Any = None


class Reorder(Order):
    """Inherits fields and defaults."""

    reason: str = ""


SAMPLES = [
    FX.Print(content="x"),
    FX.Print(content=[1, {"a": (2, None)}, {3}, b"x", 1.5]),
    FX.Log(message="m", level="error", data={"a": [1]}),
    FX.Now(),
    FX.Sleep(seconds=1),
    FX.RandomBytes(count=4),
    FX.HTTPRequest(url="https://a.b", headers={"A": "b"}, body=b"c", timeout_s=1),
    FX.ReadFile(path="/a/b"),
    FX.WriteFile(path="/a/b", content=b"c", mode="append"),
    FX.ListDirectory(path="/a"),
    FX.DeleteFile(path="/a/b"),
    FX.GetEnvironment(name="TZ"),
    FX.KeyValueGet(key="k"),
    FX.KeyValueSet(key="k", value=b"v"),
    FX.KeyValueDelete(key="k"),
    FX.KeyValueList(prefix="p", after="p1", limit=3),
    FX.CallPlugin(plugin="resize", arguments={"size": [1, (2, None)]}, function="thumb"),
    FX.StartWorkerProcess(),
    FX.StartWorkerProcess(policy="strict", plugin="notes"),
    FX.SendCommandToWorkerProcess(process=WorkerProcess("w"), command=[FX.Now(), FX.Print(content=1)], deadline_s=2),
    FX.StopWorkerProcess(process=WorkerProcess("w")),
    FX.ListWorkerProcesses(),
    FX.Order(
        name="n", weight=1, tags=["a"], pair=(1, "b"), numbers=(1, 2), words=frozenset("a"), speed=1, anything={1: 2}
    ),
]


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
def test_value_comes_back_from_repr_bytes_pickle_and_copy(value):
    names = {"FX": FX, "WorkerProcess": WorkerProcess}
    for again in (
        eval(repr(value), names),
        FX.from_bytes(value.to_bytes()),
        pickle.loads(pickle.dumps(value)),
        copy.copy(value),
        copy.deepcopy(value),
    ):
        assert type(again) is type(value)
        assert again == value
        assert hash(again) == hash(value)
        assert repr(again) == repr(value)


def test_samples_cover_every_shipped_effect():
    shipped = {name for name in FX if FX[name].__module__ == builtin.__name__}
    assert shipped <= {type(sample).__name__ for sample in SAMPLES}


def test_policy_in_an_effect_survives_bytes():
    value = FX.StartWorkerProcess(policy=load_policy("network"))
    assert FX.from_bytes(value.to_bytes()) == value


BAD = [
    (FX.Print, r"FX.Print needs the field 'content' \(Any\)"),
    (lambda: FX.Print(content=1, contents=2), "no field 'contents'; did you mean 'content'"),
    (lambda: FX.Print(contents=2), "content"),
    (lambda: FX.Now(x=1), "no field 'x' Its fields: none"),
    (lambda: FX.Sleep(seconds="1"), "FX.Sleep.seconds must be float, got str '1'"),
    (lambda: FX.Sleep(seconds=True), "FX.Sleep.seconds must be float, got bool True"),
    (lambda: FX.Sleep(seconds=None), "FX.Sleep.seconds must be float"),
    (lambda: FX.Sleep(seconds=10**400), "FX.Sleep.seconds must be float, got int"),
    (lambda: FX.Sleep(seconds=10**5000), "FX.Sleep.seconds must be float, got int"),
    (lambda: FX.RandomBytes(count=1.0), "FX.RandomBytes.count must be int"),
    (lambda: FX.RandomBytes(count=True), "FX.RandomBytes.count must be int"),
    (lambda: FX.RandomBytes(count=enum.IntEnum("E", "A").A), "FX.RandomBytes.count must be int"),
    (lambda: FX.ReadFile(path=b"/a"), "FX.ReadFile.path must be str"),
    (lambda: FX.ReadFile(path=enum.StrEnum("E", {"A": "/a"}).A), "FX.ReadFile.path must be str"),
    (lambda: FX.Log(message="x", data=[]), r"FX.Log.data must be dict\[str, Any\]"),
    (lambda: FX.Log(message="x", data={1: 2}), r"FX.Log.data must be dict\[str, Any\]"),
    (lambda: FX.HTTPRequest(url="x", headers={"a": 1}), r"FX.HTTPRequest.headers must be dict\[str, str\]"),
    (lambda: FX.HTTPRequest(url="x", body="x"), "FX.HTTPRequest.body must be bytes"),
    (lambda: FX.StopWorkerProcess(process="w"), "FX.StopWorkerProcess.process must be WorkerProcess"),
    (lambda: FX.StartWorkerProcess(policy=5), r"FX.StartWorkerProcess.policy must be str \| Policy"),
    (lambda: FX.Order(name="x", pair=(1,)), r"FX.Order.pair must be tuple\[int, str\]"),
    (lambda: FX.Order(name="x", pair=(1, 2)), "FX.Order.pair"),
    (lambda: FX.Order(name="x", pair=[1, "a"]), "FX.Order.pair"),
    (lambda: FX.Order(name="x", numbers=(1, "a")), "FX.Order.numbers"),
    (lambda: FX.Order(name="x", words={"a"}), "FX.Order.words"),
    (lambda: FX.Order(name="x", speed="Fast"), "FX.Order.speed"),
    (lambda: FX.Order(name="x", speed=True), "FX.Order.speed"),
    (lambda: FX.Order(name="x", weight="1"), "FX.Order.weight"),
    (lambda: FX.Order(name="x", label="y"), "no field 'label'"),
]


@pytest.mark.parametrize(("build", "message"), BAD, ids=range(len(BAD)))
def test_wrong_field_is_an_error_that_names_it(build, message):
    with pytest.raises(EffectError, match=message):
        build()


def test_field_without_its_name_is_an_error_that_shows_how():
    with pytest.raises(EffectError, match=r"by name only: write FX\.Print\(content=\.\.\.\)"):
        FX.Print("x")
    with pytest.raises(EffectError, match="it has none"):
        FX.Now(1)


def test_path_of_a_policy_file_is_taken_as_a_path_and_never_as_a_profile():
    assert FX.StartWorkerProcess(policy=Path("strict")).policy == str(Path.cwd() / "strict")


def test_unknown_effect_names_the_nearest():
    with pytest.raises(UnknownEffectError, match=r"did you mean FX.Print\? Known: .*HTTPRequest"):
        FX.Prnt(content=1)
    assert not hasattr(FX, "Prnt")
    assert not hasattr(FX, "__wrapped__")


def test_vocabulary_lists_every_effect():
    assert {"Print", "Order"} <= set(FX)
    assert FX.names() == tuple(sorted(FX.names()))
    assert "Print" in dir(FX)
    assert copy.copy(FX) is FX
    assert pickle.loads(pickle.dumps(FX)) is FX


def test_value_is_immutable():
    value = FX.Print(content=1)
    with pytest.raises(AttributeError, match="immutable"):
        value.content = 2
    with pytest.raises(AttributeError, match="immutable"):
        value.other = 2
    with pytest.raises(AttributeError, match="immutable"):
        del value.content
    assert value == FX.Print(content=1)


def test_defaults_are_not_shared_between_values():
    one, two = FX.Log(message="a"), FX.Log(message="a")
    one.data["x"] = 1
    assert two.data == {}
    assert FX.Log(message="a").data == {}


def test_lists_and_tables_given_are_copied():
    tags = ["a"]
    value = FX.Order(name="x", tags=tags)
    tags.append("b")
    assert value.tags == ["a"]


def test_numbers_of_another_kind_are_taken_as_the_field_says():
    assert type(FX.Sleep(seconds=1).seconds) is float
    assert type(FX.Order(name="x", data=bytearray(b"a")).data) is bytes
    assert type(FX.Order(name="x", weight=1).weight) is float


def test_equality_is_by_kind_and_content():
    assert FX.Print(content={"a": 1, "b": 2}) == FX.Print(content={"b": 2, "a": 1})
    assert FX.Print(content=[1]) != FX.Print(content=(1,))
    assert FX.Order(name="x") != FX.Reorder(name="x")
    assert FX.Now() != FX.ListWorkerProcesses()
    assert FX.Now() != "FX.Now()"
    assert len({FX.Print(content={"a": [1]}), FX.Print(content={"a": [1]}), FX.Print(content={1, 2})}) == 2


def test_values_with_arrays_compare_hash_and_show():
    one, two, three = (FX.Order(name="x", anything=numpy.array(items)) for items in ([1, 2], [1, 2], [1, 3]))
    assert one == two
    assert hash(one) == hash(two)
    assert one != three
    assert "array([1, 2])" in repr(one)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_content_survives_repr_and_bytes(content):
    value = FX.Print(content=content)
    assert eval(repr(value), {"FX": FX}) == value
    assert FX.from_bytes(value.to_bytes()) == value


def test_repr_of_library_types_evaluates_with_their_modules():
    content = [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), decimal.Decimal("1.50"), uuid.UUID(int=3)]
    names = {"FX": FX, "datetime": datetime, "Decimal": decimal.Decimal, "UUID": uuid.UUID}
    assert eval(repr(FX.Print(content=content)), names) == FX.Print(content=content)


def test_repr_leaves_defaults_out():
    assert repr(FX.Log(message="x", level="info")) == "FX.Log(message='x')"
    assert repr(FX.Now()) == "FX.Now()"


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x93", FX.Now().to_bytes()[:-1], FX.Now().to_bytes() + b"\0", b"\x93\xa1x\xc4\x00\x80"],
    ids=range(6),
)
def test_other_bytes_are_a_decode_error(data):
    with pytest.raises(DecodeError):
        FX.from_bytes(data)


@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 255))
def test_changed_bytes_are_a_value_or_a_decode_error(noise, place, byte):
    good = bytearray(FX.Log(message="x", data={"a": (1, 2)}).to_bytes())
    good[place % len(good)] = byte
    for data in (bytes(good), noise):
        with contextlib.suppress(DecodeError):
            FX.from_bytes(data)


# --- classes ---


def test_subclass_inherits_fields_and_defaults():
    assert list(Reorder.effect_fields) == [*Order.effect_fields, "reason"]
    assert Reorder(name="x").count == 1


def test_second_class_of_a_name_is_an_error():
    with pytest.raises(EffectError, match="an effect named Print exists already"):
        type("Print", (Effect,), {"__annotations__": {}})


@pytest.mark.parametrize("name", ["to_bytes", "_converted", "_x", "__class__"])
def test_field_that_hides_a_method_is_an_error(name):
    with pytest.raises(EffectError, match=f"cannot have a field named '{name}'"):
        type("Hider", (Effect,), {"__annotations__": {name: int}})
    assert "Hider" not in FX.names()


def test_default_of_another_type_is_an_error():
    with pytest.raises(EffectError, match=r"the default of FX.Wrong.count is not int"):
        type("Wrong", (Effect,), {"__annotations__": {"count": int}, "count": "1"})


@pytest.mark.parametrize("hint", [type[int], Literal, list[type[int]]], ids=repr)
def test_field_type_that_cannot_be_checked_is_an_error(hint):
    with pytest.raises(EffectError, match=r"FX.Odd.x cannot be of type"):
        type("Odd", (Effect,), {"__annotations__": {"x": hint}})


# --- running ---


class Recorder(Runner):
    def __init__(self):
        self.seen = []

    def perform(self, effect):
        self.seen.append(effect)
        return f"did {effect.effect_name}"


def test_value_piped_into_a_runner_is_performed():
    run = Recorder()
    assert FX.Now() | run == "did Now"
    assert [FX.Now(), 5, [FX.Print(content=1)]] | run == ["did Now", 5, ["did Print"]]
    assert run.seen == [FX.Now(), FX.Now(), FX.Print(content=1)]


@pytest.mark.parametrize("value", [None, 5, "x", {"a": 1}, {1}, (1, 2), 1.5, True, b"x"], ids=repr)
def test_plain_value_piped_into_a_runner_is_itself(value):
    assert value | Recorder() is value


def test_array_piped_into_a_runner_is_itself():
    array = numpy.arange(3)
    assert array | Recorder() is array


def test_runner_without_effects_says_so():
    with pytest.raises(TypeError, match=r"does not perform effects such as FX.Now"):
        FX.Now() | Runner()


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
def test_short_way_of_the_codec_writes_and_reads_what_the_long_way_does(value, monkeypatch):
    short = encode_value(value)
    assert decode_value(short, allow_calls=False) == value
    monkeypatch.setattr(encoding, "_own_parts", lambda _: None)
    monkeypatch.setattr(decoding, "_plain_own", lambda *_: None)
    assert encode_value(value) == short
    assert decode_value(short, allow_calls=False) == value


@zef_function
def read(path, times=1):
    return path * times


@pytest.mark.parametrize("allow_calls", [False, True])
@pytest.mark.parametrize("change", [b"\x00", b"\xff", b"\xc7", b"\xc1", b"\x02"])
@pytest.mark.parametrize("value", [FX.ReadFile(path="/a/b"), read("/a/b", times=2), "text", 2**40, 1.5, None, -3], ids=repr)
def test_small_value_with_one_byte_changed_is_the_same_either_way(value, change, allow_calls, monkeypatch):
    whole = encode_value(value)

    def outcomes():
        for place in range(len(whole)):
            for changed in (whole[:place] + change + whole[place + 1 :], whole + change, whole[:place]):
                try:
                    yield repr(decode_value(changed, allow_calls=allow_calls))
                except DecodeError:
                    yield "DecodeError"

    short = list(outcomes())
    monkeypatch.setattr(decoding, "_plain_own", lambda *_: None)
    monkeypatch.setattr(decoding, "_SCALAR_MARKS", frozenset())
    assert list(outcomes()) == short


@pytest.mark.parametrize("name", [name for name in FX if not is_own(FX[name])])
def test_docstring_of_a_shipped_effect_says_what_each_field_is(name):
    effect = FX[name]
    named = set(re.findall(r"(?:^ {4}| {2,})(\w+): ", effect.__doc__, re.MULTILINE)) | set(re.findall(r"`(\w+)`", effect.__doc__))
    assert not effect.effect_fields.keys() - named


class Loose(Effect):
    """Fields whose annotation does not say what is in them."""

    items: list = []
    anything: Any = {}


def test_default_is_nobody_elses_also_where_the_annotation_says_nothing_of_its_parts():
    FX.Loose().items.append(1)
    FX.Loose().anything["x"] = 1
    assert (FX.Loose().items, FX.Loose().anything) == ([], {})


@pytest.mark.parametrize("make", [lambda name: FX.Now(**{name: 1}), lambda name: FX[name]], ids=["field", "effect"])
def test_wrong_name_of_a_million_characters_is_refused_at_once_in_a_short_text(make):
    tracemalloc.start()
    try:
        with pytest.raises(EffectError) as refused:
            make("n" * 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 3000
