"""FX values: an effect as data.

`FX.Name(field=...)` builds an immutable value of a typed effect class. It does nothing by itself: `value | run` hands
it to whatever runs effects here (the host's runtime, or the broker behind a worker). The class carries the vocabulary
(names, fields, types, defaults); what each shipped effect means is in builtin.py.
"""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fxcell.policies import values
from fxcell.policies.errors import DecodeError, EffectError
from fxcell.policies.fields import MISSING, Field, converter, type_text
from fxcell.policies.names import short

_registry: dict[str, type[Effect]] = {}
_NAMES_TOLD = 40
_NAME_CHARACTERS = 100
"""Of a wrong name that a worker may have chosen: finding the nearest one takes memory by its length."""
"""Of the effects that there are, in the error for one that there is not."""


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """The handle of a worker: plain data, valid in the host process that started it."""

    id: str

    def _shown(self) -> tuple[str, list[tuple[str, Any]], str]:
        return "WorkerProcess(", [("id=", self.id)], ")"


class Effect:
    """Base of every effect. A subclass lists its fields as annotations; defaults are class attributes.

    Fields are keyword-only and checked at construction: an unknown, missing or mistyped one is an EffectError that
    names it. bool is not an int; an int is accepted for float; nothing else is converted.
    """

    effect_name: ClassVar[str] = "Effect"
    effect_fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.effect_name = cls.__name__
        cls.effect_fields = {}
        for name, hint in typing.get_type_hints(cls).items():
            if typing.get_origin(hint) is ClassVar or name in ("effect_name", "effect_fields"):
                continue
            cls.effect_fields[name] = cls._field(name, hint)
        if cls.effect_name in _registry:
            raise EffectError(f"an effect named {cls.effect_name} exists already; choose another name")
        _registry[cls.effect_name] = cls

    @classmethod
    def _field(cls, name: str, hint: Any) -> Field:
        if hasattr(Effect, name) or name.startswith("_"):
            raise EffectError(
                f"FX.{cls.__name__} cannot have a field named {name!r}: FX values use that name themselves"
            )
        try:
            convert = converter(hint)
        except TypeError as error:
            raise EffectError(f"FX.{cls.__name__}.{name} cannot be of type {type_text(hint)}: {error}") from error
        bases = (base.__dict__ for base in cls.__mro__ if issubclass(base, Effect) and base is not Effect)
        default = next((names[name] for names in bases if name in names), MISSING)
        if default is not MISSING:
            try:
                convert(default)
            except (TypeError, ValueError) as error:
                raise EffectError(f"the default of FX.{cls.__name__}.{name} is not {type_text(hint)}") from error
        return Field(name, type_text(hint), default, convert, hint)

    def __init__(self, *unnamed: Any, **given: Any) -> None:
        values_by_name: dict[str, Any] = {}
        if unnamed:
            example = next(iter(self.effect_fields), None)
            how = f"write FX.{self.effect_name}({example}=...)" if example else "it has none"
            raise EffectError(f"FX.{self.effect_name} takes its fields by name only: {how}")
        if not given.keys() <= self.effect_fields.keys():
            self._refuse_unknown(given)
        for name, field in self.effect_fields.items():
            if name in given:
                values_by_name[name] = self._converted(field, given[name])
            elif field.default is not MISSING:
                values_by_name[name] = field.fresh_default()
            else:
                raise EffectError(f"FX.{self.effect_name} needs the field {name!r} ({field.type_text})")
        self.__dict__.update(values_by_name)

    def _converted(self, field: Field, value: Any) -> Any:
        try:
            return field.convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise EffectError(
                f"FX.{self.effect_name}.{field.name} must be {field.type_text}, "
                f"got {type(value).__name__} {short(value)}"
            ) from error

    def _refuse_unknown(self, given: dict[str, Any]) -> typing.NoReturn:
        unknown = next(name for name in given if name not in self.effect_fields)
        near = difflib.get_close_matches(unknown, self.effect_fields, 1) if len(unknown) <= _NAME_CHARACTERS else []
        raise EffectError(
            f"FX.{self.effect_name} has no field {short(unknown)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" Its fields: {', '.join(self.effect_fields) or 'none'}."
        )

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"FX values are immutable: cannot set {name!r} of FX.{self.effect_name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"FX values are immutable: cannot delete {name!r} of FX.{self.effect_name}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or frozen(self.__dict__) == frozen(other.__dict__)

    def __hash__(self) -> int:
        return hash((self.effect_name, frozen(self.__dict__)))

    def __repr__(self) -> str:
        shown = (
            f"{name}={source(value)}"
            for name, value in self.__dict__.items()
            if self.effect_fields[name].required or frozen(value) != frozen(self.effect_fields[name].default)
        )
        return f"FX.{self.effect_name}({', '.join(shown)})"

    def _shown(self) -> tuple[str, Iterator[tuple[str, Any]], str]:
        """For bounded(): as __repr__, but comparing no more with a default than whether both are empty."""
        fields = self.effect_fields
        parts = ((f"{name}=", value) for name, value in self.__dict__.items() if not _is_default(value, fields[name]))
        return f"FX.{self.effect_name}(", parts, ")"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.effect_name, dict(self.__dict__)))

    def to_bytes(self) -> bytes:
        """The value as bytes that `FX.from_bytes` reads back, code of its calls included."""
        from fxcell.policies.calls import to_portable_bytes

        return to_portable_bytes(self)


def is_own(cls: type[Effect]) -> bool:
    """True for an effect that does not ship with fxcell."""
    return not cls.__module__.startswith("fxcell.")


def _is_default(value: Any, field: Field) -> bool:
    default = field.default
    if field.required or type(value) is not type(default):
        return False
    return value == default if isinstance(default, str | bytes | int | float | None) else not value and not default


def source(value: Any) -> str:
    """The repr of a value, with `float('inf')` for what repr() writes as a name that Python does not have."""
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return f"float('{value}')"
    if kind is list:
        return f"[{', '.join(map(source, value))}]"
    if kind is tuple:
        return f"({', '.join(map(source, value))}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return "{" + ", ".join(f"{source(key)}: {source(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _rebuild(name: str, fields: dict[str, Any]) -> Effect:
    return FX[name](**fields)


def frozen(value: Any) -> Any:
    """A hashable stand-in: equal for equal values, whatever the order of dict keys."""
    if isinstance(value, dict):
        return frozenset((frozen(k), frozen(v)) for k, v in value.items())
    if isinstance(value, list):
        return ("list", *(frozen(item) for item in value))
    if isinstance(value, tuple):
        return ("tuple", *(frozen(item) for item in value))
    if isinstance(value, set | frozenset):
        return frozenset(frozen(item) for item in value)
    if type(value).__name__ == "ndarray":
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value


def _known() -> dict[str, type[Effect]]:
    """Every effect class by name, the shipped ones included whatever was imported before."""
    from fxcell.policies import builtin  # noqa: F401 - its classes register themselves; it imports this module

    return _registry


class _Vocabulary:
    """The FX namespace: one attribute per known effect class."""

    def __getattr__(self, name: str) -> type[Effect]:
        known = _registry.get(name)
        if known is not None:
            return known
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> type[Effect]:
        try:
            return _registry[name] if name in _registry else _known()[name]
        except KeyError:
            near = difflib.get_close_matches(name, _known(), 1) if len(name) <= _NAME_CHARACTERS else []
            name = name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}…"
            hint = f"; did you mean FX.{near[0]}?" if near else ""
            known = sorted(_known())
            more = f", and {len(known) - _NAMES_TOLD} more" if len(known) > _NAMES_TOLD else ""
            raise UnknownEffectError(
                f"there is no effect FX.{name}{hint} Known: {', '.join(known[:_NAMES_TOLD])}{more}. "
                "(A worker knows an effect of your own only where its policy grants it.)"
            ) from None

    def __dir__(self) -> list[str]:
        return sorted([*_known(), "from_bytes", "names"])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(_known()))

    def __repr__(self) -> str:
        return f"<FX: {', '.join(sorted(_known()))}>"

    def __reduce__(self) -> str:
        return "FX"

    def names(self) -> tuple[str, ...]:
        """The names of all known effects, sorted."""
        return tuple(sorted(_known()))

    def from_bytes(self, data: bytes) -> Any:
        """Read back what `to_bytes` wrote. Calls in it can be sent to a worker; see Call."""
        from fxcell.policies.calls import from_portable_bytes

        return from_portable_bytes(data)


class UnknownEffectError(EffectError, AttributeError):
    """There is no effect of that name (also an AttributeError, so that hasattr and copy work on FX)."""


FX = _Vocabulary()


def _effect_from_parts(parts: Any, _allow_calls: bool) -> Effect:
    name, fields = parts
    if type(name) is not str or type(fields) is not dict or (name not in _registry and name not in _known()):
        raise DecodeError(f"the message names an unknown effect {short(name)}")
    try:
        return _registry[name](**fields)
    except EffectError as error:
        raise DecodeError(str(error)) from error


def _worker_from_parts(parts: Any, _allow_calls: bool) -> WorkerProcess:
    if type(parts) is not str:
        raise DecodeError("a worker handle must hold a string")
    return WorkerProcess(parts)


values.register(values.Ext.EFFECT, Effect, lambda e: [e.effect_name, dict(e.__dict__)], _effect_from_parts)
values.register(values.Ext.WORKER_PROCESS, WorkerProcess, lambda w: w.id, _worker_from_parts)
