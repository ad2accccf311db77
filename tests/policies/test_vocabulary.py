"""What a worker is told of effects of one's own: as data, and the class made of it checks as the original does."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
import uuid
from typing import Any, Literal, Optional

import pytest

from fxcell.policies import values, vocabulary
from fxcell.policies.effects import Effect
from fxcell.policies.errors import DecodeError, EffectError
from fxcell.policies.policy import Policy


class Everything(Effect):
    """All that can be described."""

    text: str
    anything: Any
    number: float = 1.5
    count: int = 3
    flag: bool = False
    raw: bytes = b"\x00"
    maybe: Optional[str] = None  # noqa: UP045 - written as users write
    either: int | str = "x"
    kind: Literal["a", 1, True] | None = "a"
    names: list[str] = []
    pairs: tuple[int, str] = (1, "b")
    row: tuple[int, ...] = ()
    table: dict[str, list[int | None]] = {}
    members: set[str] = set()
    money: decimal.Decimal = decimal.Decimal("1.10")
    key: uuid.UUID | None = None
    loose: list = []


class Unit:
    pass


class OfAClass(Effect):
    unit: Unit


class OfAType(Effect):
    unit: list[Unit]


class OfAWideDefault(Effect):
    text: str = "x" * 70_000


class OfADefaultThatDoesNotTravel(Effect):
    thing: Any = Unit()


GRANTED = Policy(effects={"Everything": True, "Now": True})  # type: ignore[dict-item]
PROBES = [
    {},
    {"text": "t", "anything": [1]},
    {"text": b"t", "anything": 1},
    {"text": "t", "anything": 1, "number": 2},
    {"text": "t", "anything": 1, "number": True},
    {"text": "t", "anything": 1, "count": 1.0},
    {"text": "t", "anything": 1, "count": True},
    {"text": "t", "anything": 1, "flag": 1},
    {"text": "t", "anything": 1, "maybe": 1},
    {"text": "t", "anything": 1, "either": 1.5},
    {"text": "t", "anything": 1, "kind": 1.0},
    {"text": "t", "anything": 1, "kind": False},
    {"text": "t", "anything": 1, "names": ["a", 1]},
    {"text": "t", "anything": 1, "names": ("a",)},
    {"text": "t", "anything": 1, "pairs": (1, "a", 2)},
    {"text": "t", "anything": 1, "row": (1, "a")},
    {"text": "t", "anything": 1, "table": {"a": [1, None]}},
    {"text": "t", "anything": 1, "table": {"a": [1.0]}},
    {"text": "t", "anything": 1, "members": ["a"]},
    {"text": "t", "anything": 1, "money": 1},
    {"text": "t", "anything": 1, "key": "no"},
    {"text": "t", "anything": 1, "lose": []},
]


def answers(cls: Any) -> list[str]:
    said = []
    for probe in PROBES:
        try:
            said.append(repr(cls(**probe)))
        except EffectError as error:
            said.append(str(error))
    return said


IN_ANOTHER_PROCESS = f"""
import json, sys
from fxcell.policies import vocabulary
from fxcell.policies.effects import FX
from fxcell.policies.errors import EffectError

def answer(probe):
    try:
        return repr(FX.Everything(**probe))
    except EffectError as error:
        return str(error)

vocabulary.adopt(bytes.fromhex(sys.stdin.read()))
print(json.dumps([[answer(probe) for probe in {PROBES!r}], FX.Everything.__doc__]))
"""


def test_class_made_of_the_description_checks_and_words_errors_as_the_original():
    data = vocabulary.described(GRANTED)
    assert data is not None
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    done = subprocess.run(command, input=data.hex(), capture_output=True, text=True, check=True)
    said, doc = json.loads(done.stdout)
    assert said == answers(Everything)
    assert doc == Everything.__doc__
    assert sum("must be" in line for line in said) >= 15


def test_policy_with_shipped_effects_alone_has_nothing_to_tell():
    assert vocabulary.described(Policy(effects={"Print": True, "Now": True})) is None
    assert vocabulary.described(Policy()) is None


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (OfAClass, r"FX\.OfAClass\.unit is of type .*Unit, which no worker can be told of: Unit is not"),
        (OfAType, r"FX\.OfAType\.unit"),
        (OfAWideDefault, r"takes 70,\d+ bytes to describe, 65,536 are allowed"),
        (OfADefaultThatDoesNotTravel, r"a default of FX\.OfADefaultThatDoesNotTravel cannot be sent"),
    ],
)
def test_effect_that_cannot_be_described_is_refused_by_name(cls, message):
    with pytest.raises(EffectError, match=message):
        vocabulary.check_describable(cls)


def test_known_name_stays_as_it_is():
    vocabulary.adopt(values.encode_value([{"name": "Everything", "doc": "", "fields": []}]))
    assert "text" in Everything.effect_fields


@pytest.mark.parametrize("tree", ["os.system", ["call", "str"], [], ["eval", "1"], 5, ["list", "open"]])
def test_type_that_is_no_known_form_is_refused(tree):
    field = {"name": "a", "text": "str", "type": tree}
    with pytest.raises(DecodeError):
        vocabulary.adopt(values.encode_value([{"name": "Forged", "doc": "", "fields": [field]}]))
