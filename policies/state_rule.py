"""The rules of the KeyValue effects: where plugins' files are, and how much one plugin may keep.

    KeyValueGet = { directory = "/srv/app/state" }
    KeyValueSet = { directory = "/srv/app/state", max_bytes = "16 MiB", max_value_bytes = "1 MiB", max_keys = 10000 }

The directory is the operator's; which file in it is a plugin's own follows from the name it was started under, never from
what it says. check_directories holds what no single rule can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import GiB, MiB
from fxcell.policies.names import short
from fxcell.policies.paths import check_directory
from fxcell.policies.rule import Refusal, Rule, byte_count

MAX_KEY_BYTES = 512
"""Length of a key, in UTF-8."""

MAX_KEYS = 10_000_000
_MAX_VALUE_BYTES = 256 * MiB
_MAX_BYTES = 64 * GiB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StateRule(Rule):
    """The plugin's own file in this directory: KeyValueGet, KeyValueDelete, KeyValueList.

    directory: absolute; the host's user owns it, and nobody else may write there.
    """

    required: ClassVar[str] = "directory"
    example: ClassVar[str] = '{ directory = "/srv/app/state" }'

    directory: str = ""

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        check_directory("directory", self.directory)

    def judge(self, effect: Effect) -> Refusal | None:
        for field in ("key", "prefix", "after"):
            text = getattr(effect, field, "")
            if fault := text_fault(text):
                return Refusal(field, fault, "")
        if getattr(effect, "key", None) == "":
            return Refusal("key", "a key must not be empty", "")
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StateSetRule(StateRule):
    """The same for KeyValueSet, with the plugin's quota.

    max_bytes:       keys (in UTF-8) and values of one plugin together; the file can be up to four times as large, and 256 bytes
                     for each of max_keys, and 64 pages.
    max_value_bytes: one value, at most 256 MiB.
    max_keys:        number of keys.
    """

    max_bytes: int = 16 * MiB
    max_value_bytes: int = 1 * MiB
    max_keys: int = 10_000

    def __post_init__(self) -> None:
        StateRule.__post_init__(self)
        byte_count("max_bytes", self.max_bytes, _MAX_BYTES)
        byte_count("max_value_bytes", self.max_value_bytes, _MAX_VALUE_BYTES)
        if self.max_bytes < 1:
            raise PolicyError("max_bytes = 0 lets nothing be stored; leave the effect out instead", at=("max_bytes",))
        if self.max_value_bytes > self.max_bytes:
            text = f"max_value_bytes = {self.max_value_bytes} is over max_bytes = {self.max_bytes} and so without effect"
            raise PolicyError(text, at=("max_value_bytes",))
        if type(self.max_keys) is not int or not 1 <= self.max_keys <= MAX_KEYS:
            text = f"max_keys must be a whole number from 1 to {MAX_KEYS:,}, got {short(self.max_keys)}"
            raise PolicyError(text, at=("max_keys",))

    def judge(self, effect: Effect) -> Refusal | None:
        size = len(effect.value)  # type: ignore[attr-defined]
        if size > self.max_value_bytes:
            rule = f"{size} bytes are over max_value_bytes = {self.max_value_bytes}"
            fits = size <= min(_MAX_VALUE_BYTES, self.max_bytes)
            return Refusal("value", rule, f'effects.KeyValueSet.max_value_bytes = "{size} B"' if fits else "")
        return StateRule.judge(self, effect)


def text_fault(text: object) -> str:
    """What is wrong with a key or prefix, in words; "" when nothing is."""
    if type(text) is not str:
        return f"it must be a plain str, not {type(text).__name__}"
    if len(text) > MAX_KEY_BYTES:
        return f"it is longer than {MAX_KEY_BYTES} bytes"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if size > MAX_KEY_BYTES:
        return f"it is longer than {MAX_KEY_BYTES} bytes"
    return "it holds a NUL character" if "\0" in text else ""


def check_directories(effects: Mapping[str, Rule]) -> None:
    """Raise PolicyError unless all KeyValue effects name one directory, and no effect on files reaches into it.

    A worker that may write there could forge its file, one that may read there sees the others'; and a file that the host
    opens and closes beside SQLite loses SQLite its locks (sqlite.org/howtocorrupt.html, 2.2).
    """
    stateful = {name: rule.directory for name, rule in effects.items() if isinstance(rule, StateRule)}
    if not stateful:
        return
    first, directory = next(iter(stateful.items()))
    for name, other in stateful.items():
        if other != directory:
            text = f"effects.{name}: directory = {other!r}, but effects.{first} names {directory!r}: they must be the same"
            raise PolicyError(text, at=("effects", name, "directory"))
    for name, rule in effects.items():
        for granted in getattr(rule, "under", ()):  # every rule of an effect on files
            if _overlap(granted, directory):
                text = f"effects.{name}: under holds {granted!r}, which reaches into the directory of effects.{first}"
                raise PolicyError(f"{text}, {directory!r}; keep state outside", at=("effects", name, "under"))


def _overlap(one: str, two: str) -> bool:
    return f"{one}/".startswith(f"{two}/") or f"{two}/".startswith(f"{one}/")
