"""The rule of every effect without a rule of its own kind: allowed values and largest numbers, per field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

from fxcell.policies.effects import FX, Effect, is_own
from fxcell.policies.errors import PolicyError
from fxcell.policies.fields import Field
from fxcell.policies.names import nearest, short
from fxcell.policies.rule import BASE_KEYS, Refusal, Rule, blamed_on, bytes_of
from fxcell.policies.secret_refs import checked_field_secrets

DEFAULT_MAXIMA: Mapping[str, Mapping[str, float]] = {
    "Sleep": {"seconds": 86_400.0},
    "RandomBytes": {"count": 2**20},
}
"""Effect -> field -> largest number when a rule names none: what the host does for a worker is always bounded."""

_SCALARS = (str, int, float, bool)
_LARGEST_INT = 2**63 - 1  # of TOML, and of what a policy's digest is made of
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlainRule(Rule):
    """Conditions on single fields. In TOML `level = ["info"]` lists values, `max_seconds = 10` bounds a number.

    allowed: field -> the only values it may have, compared with their type.
    maxima:  field -> largest number; a bounded field must lie from 0 to it.
    secrets: of an effect of one's own: text field -> where the host takes its value from (fxcell.policies.secret_refs).
             The worker must leave it at its placeholder; the handler sees it filled.
    """

    unwritten: ClassVar[frozenset[str]] = Rule.unwritten | {"secrets"}

    allowed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    maxima: Mapping[str, float] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        for name, values in self.allowed.items():
            _check_values(name, values)
            if name in BASE_KEYS and getattr(self, name) not in (None, False):
                raise PolicyError(f"{name} cannot be both a condition on the field and the rule's own key", at=(name,))
        for name, maximum in self.maxima.items():
            high = _LARGEST_INT if type(maximum) is int else math.nextafter(math.inf, 0)
            if type(maximum) not in (int, float) or not 0 <= maximum <= high:
                raise PolicyError(
                    f"max_{name} must be a finite number from 0, a whole one below 2**63, got {short(maximum)}",
                    at=(f"max_{name}",),
                )
        allowed = {
            name: tuple(sorted(values, key=lambda v: (type(v).__name__, v))) for name, values in self.allowed.items()
        }
        object.__setattr__(self, "allowed", MappingProxyType(allowed))
        object.__setattr__(self, "maxima", MappingProxyType(dict(self.maxima)))
        object.__setattr__(self, "secrets", checked_field_secrets(self.secrets))

    def judge(self, effect: Effect) -> Refusal | None:
        name = toml_key(effect.effect_name)
        for key in self.secrets:
            given, left = getattr(effect, key), placeholder(effect.effect_fields[key])
            if type(given) is not type(left) or given != left:
                return Refusal(key, "it is filled by the host, from a secret; leave it out", "")
        for key, values in self.allowed.items():
            given = getattr(effect, key)
            if not any(type(given) is type(value) and given == value for value in values):
                shown = ", ".join(repr(value) for value in values)
                return Refusal(
                    key, f"{short(given)} is not exactly one of {shown}", _wider(f"effects.{name}.{toml_key(key)}", values, given)
                )
        for key, maximum in self.maxima.items():
            given = getattr(effect, key)
            if type(given) not in (int, float) or not 0 <= given < math.inf:
                return Refusal(key, f"{short(given)} is not a number from 0 to {maximum}", "")
            if given > maximum:
                wider = f"effects.{name}.{toml_key(f'max_{key}')} = {given!r}" if _fits(given) else ""
                return Refusal(key, f"{short(given)} is over the maximum of {maximum}", wider)
        return None

    def to_data(self) -> dict[str, Any]:
        data: dict[str, Any] = {key: list(values) for key, values in self.allowed.items()}
        data.update({f"max_{key}": maximum for key, maximum in self.maxima.items()})
        if self.secrets:
            data["secrets"] = dict(self.secrets)
        used = {key: getattr(self, key) for key in BASE_KEYS}
        return data | {key: value for key, value in used.items() if value is not None and value is not False}

    @classmethod
    def from_data(cls, effect: str, data: Mapping[str, Any]) -> Self:
        _check_keys(FX[effect], data)  # a wrong name is said before a wrong value
        parts: dict[str, Any] = {"allowed": {}, "maxima": {}}
        for key, value in data.items():
            # A list is of allowed values, also where a field of one's own is called `rate` or `ask`.
            if key in (*BASE_KEYS, *_secrets_key(FX[effect])) and not isinstance(value, list | tuple):
                parts[key] = value
            elif key.startswith("max_"):
                parts["maxima"][key.removeprefix("max_")] = value
            else:
                parts["allowed"][key] = value
        with blamed_on(effect):
            if "max_total_bytes" in parts:
                parts["max_total_bytes"] = bytes_of(parts["max_total_bytes"], "max_total_bytes")
            return cls(**parts)

    def fitted(self, effect: type[Effect]) -> PlainRule:
        name, known = effect.effect_name, effect.effect_fields
        _check_keys(effect, [*self.allowed, *(f"max_{key}" for key in self.maxima)])
        allowed = {
            key: [_converted(name, known[key], value) for value in values] for key, values in self.allowed.items()
        }
        _check_secrets(effect, self)
        # Converted, so that 10 and 10.0 give one digest where the field is a float.
        maxima = {key: _converted(name, known[key], value) for key, value in self.maxima.items()}
        maxima = {**DEFAULT_MAXIMA.get(name, {}), **maxima}
        return replace(self, allowed=allowed, maxima=maxima)


def _check_keys(effect: type[Effect], given: Iterable[str]) -> None:
    name, known = effect.effect_name, effect.effect_fields
    keys = [*BASE_KEYS, *_secrets_key(effect), *known, *(f"max_{key}" for key, field in known.items() if _is_number(field))]
    for key in given:
        if key not in keys:
            raise PolicyError(f"effects.{name} has no key {key!r}{nearest(key, keys)}", at=("effects", name, str(key)))


def placeholder(field: Field) -> Any:
    """What stands in a field that the host fills: its default, "" where the class gives none."""
    return "" if field.required else field.default


def _secrets_key(effect: type[Effect]) -> tuple[str, ...]:
    return ("secrets",) if is_own(effect) else ()


def _check_secrets(effect: type[Effect], rule: PlainRule) -> None:
    name, known = effect.effect_name, effect.effect_fields
    for key in rule.secrets:
        at = ("effects", name, "secrets", key)
        if not is_own(effect):
            raise PolicyError(f"effects.{name} takes no secrets: the host's handler would show them", at=at)
        if key not in known:
            raise PolicyError(f"effects.{name}.secrets: FX.{name} has no field {key!r}{nearest(key, list(known))}", at=at)
        if key in rule.allowed or key in rule.maxima:
            raise PolicyError(f"effects.{name}.secrets: {key} is filled by the host, so no condition on it decides", at=at)
        try:
            taken = [known[key].convert(text) for text in ("a text", placeholder(known[key]))]
        except (TypeError, ValueError, OverflowError):
            taken = []
        if not taken or taken[0] != "a text":
            raise PolicyError(f"effects.{name}.secrets: {key} must be a field of texts, it is {known[key].type_text}", at=at)


def _check_values(name: str, values: object) -> None:
    if isinstance(values, str) or not isinstance(values, list | tuple):
        raise PolicyError(f"{name} must be a list of allowed values, got {short(values)}", at=(name,))
    if not values:
        raise PolicyError(
            f"{name} = [] allows no value, so the rule grants nothing; leave the effect out instead", at=(name,)
        )
    for index, value in enumerate(values):
        if type(value) not in _SCALARS or (type(value) is float and not math.isfinite(value)):
            raise PolicyError(f"{name} may list texts, numbers and booleans, got {short(value)}", at=(name,))
        if type(value) is int and not -_LARGEST_INT - 1 <= value <= _LARGEST_INT:
            raise PolicyError(f"{name} may list whole numbers of 64 bits, got {short(value)}", at=(name,))
        if any(type(value) is type(other) and value == other for other in values[:index]):
            raise PolicyError(f"{name} holds {value!r} twice; the second is without effect", at=(name,))


def _is_number(field: Field) -> bool:
    return field.type_text in ("int", "float")


def _converted(effect: str, field: Field, value: Any) -> Any:
    """The value as the field would hold it (an int in a float field is that float)."""
    try:
        return field.convert(value)
    except (TypeError, ValueError, OverflowError):
        raise PolicyError(
            f"effects.{effect}.{field.name} holds {short(value)}, but the field is {field.type_text}",
            at=("effects", effect, field.name),
        ) from None


def _wider(key: str, values: Sequence[Any], given: Any) -> str:
    """The line that adds a value to the list; "" for one that TOML cannot hold on a line."""
    if type(given) not in _SCALARS or not _fits(given) or (type(given) is str and (len(given) > 200 or not _travels(given))):
        return ""
    return f"{key} = [{', '.join(_toml(value) for value in (*values, given))}]"


def _travels(text: str) -> bool:
    """False for a text with half a character in it, which no file holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(value: Any) -> bool:
    """False for whole numbers beyond TOML's 64 bits, which can have so many digits that Python refuses to write them."""
    return type(value) is not int or -_LARGEST_INT - 1 <= value <= _LARGEST_INT


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return toml_text(value) if isinstance(value, str) else repr(value)


def toml_text(text: str) -> str:
    """A text as TOML writes it, on one line."""
    from msgspec import json

    # JSON's escapes are TOML's; but TOML does not take DEL as it is.
    return json.encode(text).decode().replace("\x7f", "\\u007f")


def toml_key(key: str) -> str:
    """A key as TOML writes it: bare where it can be, for a Python name may hold letters that bare keys cannot."""
    return key if _BARE_KEY.fullmatch(key) else toml_text(key)
