"""The base of all rules: a frozen table of conditions that judges one effect, equal to its own TOML form."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import msgspec

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import parse_bytes
from fxcell.policies.names import nearest, short
from fxcell.policies.rates import check_burst, parse_rate

_canonical = msgspec.msgpack.Encoder(order="deterministic").encode


class Refusal(NamedTuple):
    """Why a rule refuses.

    field:      the one that decided, or None for the effect as such.   rule: what decided, in words.
    suggestion: the TOML line that would allow it, or "" where none can.
    """

    field: str | None
    rule: str
    suggestion: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """Base of the rules: what every effect's rule can say. The broker keeps the counts (fxcell.host.gates).

    max_calls:       how often one command may ask for the effect; None leaves it to limits.effects, which counts all effects.
    rate:            how often one worker may ask, over all its commands: "10/s", "600/min" or "5/h". What comes faster is
                     denied, not delayed. Of a plugin that is registered for CallPlugin: over all its calls.
    burst:           how many may come at once after a pause; None is the rate's own number.
    max_total_bytes: bytes, as encoded, that the effect's arguments and answers may have together in one command.
    ask:             True: whoever the host named (fxcell.host.asking) must agree to each; where nobody can be asked, or
                     nobody answers in time, it is denied.
    """

    max_calls: int | None = None
    rate: str | None = None
    burst: int | None = None
    max_total_bytes: int | None = None
    ask: bool = False

    required: ClassVar[str] = ""
    """The key without which the rule would grant nothing, or ""."""
    example: ClassVar[str] = "true"
    """What a usable rule looks like in TOML."""
    unwritten: ClassVar[frozenset[str]] = frozenset({"ask"})
    """Keys that are written only where they say something: policies that do not use them keep the digest they had."""

    def __post_init__(self) -> None:
        if self.max_calls is not None and (type(self.max_calls) is not int or self.max_calls < 1):
            raise PolicyError(
                f"max_calls must be a whole number from 1, got {short(self.max_calls)}", at=("max_calls",)
            )
        rate = None if self.rate is None else parse_rate(self.rate)
        if rate is not None:
            object.__setattr__(self, "rate", str(rate))
        if self.burst is not None:
            check_burst(self.burst, rate)
        if self.max_total_bytes is not None:
            byte_count("max_total_bytes", self.max_total_bytes)
            if self.max_total_bytes == 0:
                raise PolicyError(
                    "max_total_bytes = 0 allows nothing; leave the effect out instead", at=("max_total_bytes",)
                )
        if type(self.ask) is not bool:
            raise PolicyError(f"ask must be true or false, got {short(self.ask)}", at=("ask",))

    @property
    def gated(self) -> bool:
        """True when more than the fields decides: a rate, a byte budget, or somebody who is asked."""
        return self.ask or self.rate is not None or self.max_total_bytes is not None

    def judge(self, effect: Effect) -> Refusal | None:
        """Why this rule refuses the effect, or None when it grants it."""
        raise NotImplementedError

    def to_data(self) -> dict[str, Any]:
        """The rule as a table of plain data, defaults included; `from_data` reads it back."""
        data = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {name: value for name, value in data.items() if value is not None and (value or name not in self.unwritten)}

    @classmethod
    def from_data(cls, effect: str, data: Mapping[str, Any]) -> Self:
        """Build the rule of an effect from a table. Raises PolicyError naming the unknown or unusable key."""
        keys = [field.name for field in fields(cls)]
        for key in data:
            if key not in keys:
                raise PolicyError(
                    f"effects.{effect} has no key {key!r}{nearest(key, keys)}", at=("effects", effect, str(key))
                )
        if cls.required and cls.required not in data:
            raise PolicyError(f"effects.{effect} needs {cls.required!r}: write {cls.example}", at=("effects", effect))
        with blamed_on(effect):
            read: dict[str, Any] = {
                key: bytes_of(value, key) if key.endswith("_bytes") else value for key, value in data.items()
            }
            return cls(**read)

    def fitted(self, effect: type[Effect]) -> Rule:
        """The rule with what this effect's fields add to it. Raises PolicyError when it does not fit them."""
        del effect
        return self

    @classmethod
    def narrowest(cls, effect: Effect) -> str:
        """The right-hand side, in TOML, of a rule that grants this very effect."""
        del effect
        return cls.example

    def __eq__(self, other: object) -> bool:
        # By the encoded form: tuples would call 1, 1.0 and True equal.
        return isinstance(other, Rule) and type(other) is type(self) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> bytes:
        return _canonical(self.to_data())

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), {field.name: _plain(getattr(self, field.name)) for field in fields(self)}))


BASE_KEYS = tuple(field.name for field in fields(Rule))
"""The keys that every rule has."""


@contextlib.contextmanager
def blamed_on(effect: str) -> Iterator[None]:
    """Give a PolicyError about one key of a rule the effect that it belongs to."""
    try:
        yield
    except PolicyError as error:
        raise PolicyError(f"effects.{effect}: {error.message}", at=("effects", effect, *error.at)) from error


def _rebuild(kind: type[Rule], values: dict[str, Any]) -> Rule:
    return kind(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def bytes_of(value: object, key: str) -> object:
    """A text such as "16 MiB" as a number; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value, key)
    except PolicyError as error:
        raise PolicyError(error.message, at=(key,)) from error


def byte_count(name: str, value: object, high: int = 2**40) -> None:
    """Raise PolicyError unless the value is a whole number of bytes from 0 to `high`."""
    if type(value) is not int or not 0 <= value <= high:
        raise PolicyError(
            f'{name} must be a size such as "16 MiB", at most {high:,} bytes, got {short(value)}', at=(name,)
        )


def texts(name: str, value: object, example: str) -> tuple[str, ...]:
    """A list of different, non-empty texts, sorted. Raises PolicyError for anything else."""
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise PolicyError(f"{name} must be a list such as {example}, got {short(value)}", at=(name,))
    for item in value:
        if type(item) is not str or not item:
            raise PolicyError(f"{name} must hold texts such as {example}, got {short(item)}", at=(name,))
    seen = sorted(value)
    for one, two in itertools.pairwise(seen):
        if one == two:
            raise PolicyError(f"{name} holds {one!r} twice; the second is without effect", at=(name,))
    return tuple(seen)
