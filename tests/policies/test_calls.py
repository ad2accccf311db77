"""Calls of zef_functions as values."""

from __future__ import annotations

import copy
import functools
import threading

import msgspec
import pytest

from fxcell.policies import calls, values
from fxcell.policies.calls import Call, Definition, zef_function
from fxcell.policies.effects import FX
from fxcell.policies.errors import DecodeError, EffectError, EncodeError, PluginError
from fxcell.policies.running import Runner, carries_work, holds_work


@zef_function
def add(one: int, two: int = 2, *, three: int = 3) -> int:
    """Add up."""
    return one + two + three


@zef_function
def say(text):
    return FX.Print(content=text)


class Echo(Runner):
    def perform(self, effect):
        return ("performed", effect)


def test_calling_describes_and_does_not_call():
    @zef_function
    def never():
        raise AssertionError

    assert isinstance(never(), Call)


def test_call_piped_into_a_runner_is_performed():
    assert add(1, three=4) | Echo() == 7
    assert [add(1), add(2)] | Echo() == [6, 7]


def test_effect_answered_by_a_call_is_performed_too():
    assert say("x") | Echo() == ("performed", FX.Print(content="x"))


def test_list_of_effects_answered_by_a_call_is_performed_and_other_values_are_not():
    @zef_function
    def many():
        return [FX.Now(), 1, [FX.Now()]]

    @zef_function
    def table():
        return {"a": FX.Now()}

    assert many() | Echo() == [("performed", FX.Now()), 1, [("performed", FX.Now())]]
    assert table() | Echo() == {"a": FX.Now()}


def test_holds_work_looks_into_lists_only():
    assert holds_work([1, [FX.Now()]])
    assert holds_work(add(1))
    assert not any(map(holds_work, ([], [1], (FX.Now(),), {"a": FX.Now()}, None)))


def test_carries_work_looks_into_every_container():
    effect = FX.Now()
    hiding = (effect, add(1), [1, [effect]], (effect,), {"a": (1, [effect])}, [b"", {1: effect}])
    assert all(map(carries_work, hiding))
    assert not any(map(carries_work, ([], [1], {"a": [b"x", (1, 2.0)]}, {1, 2}, None, "text", b"bytes")))


def test_outcome_returns_outcomes_and_raises_the_rest():
    @zef_function
    def fails():
        raise PluginError("ValueError", "x")

    @zef_function
    def breaks():
        raise ValueError("x")

    assert isinstance(Echo().outcome(fails()), PluginError)
    assert Echo().outcome(add(1)) == 6
    with pytest.raises(ValueError, match="x"):
        Echo().outcome(breaks())


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)], ids=len)
def test_arguments_that_do_not_fit_are_an_error_at_once(arguments):
    with pytest.raises(TypeError):
        add(*arguments)
    with pytest.raises(TypeError):
        add(1, four=4)


SHAPES = (
    lambda: 0,
    lambda one: 0,
    lambda one, /, two=2: 0,
    lambda one, two=2, *, three=3: 0,
    lambda one, *, three: 0,
    lambda *rest: 0,
    lambda one, two, *rest, three=3, **more: 0,
)


@pytest.mark.parametrize("function", SHAPES, ids=range(len(SHAPES)))
@pytest.mark.parametrize("named", [{}, {"three": 3}], ids=len)
@pytest.mark.parametrize("count", range(5))
def test_arguments_are_refused_exactly_where_the_function_would_refuse_them(function, named, count):
    places = (None,) * count
    try:
        function(*places, **named)
    except TypeError:
        with pytest.raises(TypeError):
            zef_function(function)(*places, **named)
    else:
        call = zef_function(function)(*places, **named)
        assert (call.args, call.kwargs) == (places, named)


def test_zef_function_keeps_name_docs_and_function():
    assert (add.__name__, add.__doc__) == ("add", "Add up.")
    assert add.function(1) == 6
    assert repr(add).endswith(".add>")
    assert repr(add(1, three=5)) == "add(1, three=5)"


@pytest.mark.parametrize("thing", [int, 5, None, functools.partial(print)], ids=repr)
def test_other_things_are_no_zef_functions(thing):
    with pytest.raises(EffectError, match="takes a function"):
        zef_function(thing)


def test_calls_are_equal_by_code_and_arguments():
    assert add(1) == add(1)
    assert hash(add(1, 2)) == hash(add(1, 2))
    assert add([1, {"a": 2}]) == add([1, {"a": 2}])
    assert hash(add([1, {"a": {2}}])) == hash(add([1, {"a": {2}}]))
    assert add(1) != add(2)
    assert add(1) != say(1)
    assert add(1) != "add(1)"
    assert len({add(1), add(1), add(2)}) == 2


def test_calls_are_immutable():
    call = add(1)
    with pytest.raises(AttributeError, match="immutable"):
        call.args = (2,)
    with pytest.raises(AttributeError):
        call.other = 1
    with pytest.raises(AttributeError, match="immutable"):
        del call.args


def test_call_survives_copy():
    assert copy.copy(add(1)) == add(1)
    assert copy.deepcopy(add(1, three=[2]).args) == (1,)


@pytest.mark.parametrize(
    "value", [add(1), [add(1), {"a": (add(2, three=3),)}], FX.Print(content=add(1)), say(add(1))], ids=range(4)
)
def test_calls_survive_portable_bytes(value):
    data = calls.to_portable_bytes(value)
    again = FX.from_bytes(data)
    assert again == value
    assert calls.to_portable_bytes(again) == data


def test_call_to_bytes_is_read_by_fx():
    assert FX.from_bytes(add(1, 2).to_bytes()) == add(1, 2)


def test_definition_is_packed_once_for_many_calls():
    packed = values.pack([add(n) for n in range(10)])
    assert list(packed.definitions) == [add.definition.digest]
    assert len(packed.body) < 2000
    assert packed.definitions[add.definition.digest].code == add.definition.code


def test_call_from_elsewhere_can_be_stored_again_but_not_performed():
    code = b"not code of this process"
    digest = calls.hashlib.sha256(code).hexdigest()
    body = values.encode_value(Call(Definition(digest, "far", code), (1,), {}))
    data = msgspec.msgpack.encode(["fxcell-value/1", body, {digest: ["far", code]}])
    call = FX.from_bytes(data)
    assert call.to_bytes() == data
    with pytest.raises(EffectError, match=r"the code of far .* is not loaded here"):
        call | Echo()


def test_call_whose_code_is_not_here_cannot_be_stored():
    call = values.decode_value(values.encode_value(Call(Definition("0" * 64, "far"), (), {})), allow_calls=True)
    with pytest.raises(EncodeError, match="the code of far is not in this process"):
        call.to_bytes()


def test_code_that_does_not_match_its_digest_is_a_decode_error():
    form, body, definitions = msgspec.msgpack.decode(add(1).to_bytes())
    ((digest, (name, code)),) = definitions.items()
    for changed in (
        {digest: [name, code + b"x"]},
        {"0" * 64: [name, code]},
        {digest: [name, "text"]},
        {digest: [5, code]},
    ):
        with pytest.raises(DecodeError):
            FX.from_bytes(msgspec.msgpack.encode([form, body, changed]))


@pytest.mark.parametrize(
    "stored",
    [None, [], ["fxcell-value/1"], ["fxcell-value/2", b"\xc0", {}], ["fxcell-value/1", b"\xc0", []],
     ["fxcell-value/1", b"\xc0", {"a": 1}], ["fxcell-value/1", 5, {}], ["fxcell-value/1", "x", {}], [5, b"\xc0", {}]],
    ids=repr,
)  # fmt: skip
def test_portable_bytes_of_another_shape_are_a_decode_error(stored):
    with pytest.raises(DecodeError):
        FX.from_bytes(msgspec.msgpack.encode(stored))


def test_reading_bytes_never_runs_code(monkeypatch):
    import pickle

    monkeypatch.setattr(pickle, "loads", lambda *_a, **_k: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "Unpickler", None)
    assert FX.from_bytes(add(1).to_bytes()) == add(1)


def test_function_that_captures_what_cannot_be_copied_is_an_error():
    lock = threading.Lock()

    @zef_function
    def locked():
        return lock

    with pytest.raises(EncodeError, match=r"cannot ship .*locked to a worker.* create that inside"):
        locked()


def test_same_code_gives_one_digest():
    def make():
        return zef_function(lambda x: x + 1)

    assert make()(1) == make()(1)


def test_argument_that_does_not_travel_is_an_error_at_packing():
    with pytest.raises(EncodeError, match="cannot encode"):
        values.pack(add(object()))


def test_parameter_may_be_named_self():
    @zef_function
    def shown(self, /, **more):
        return self, more

    assert shown(1, self=2).perform() == (1, {"self": 2})
