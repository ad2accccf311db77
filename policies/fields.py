"""Fields of effects: what an annotation accepts, and the value that is kept."""

from __future__ import annotations

import copy
import functools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fxcell.policies.value_types import SCALARS

MISSING: Any = object()
"""The default of a field that has none."""

_UNCHANGEABLE = SCALARS | {bytes}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an effect: name, type as written, default (or none), the check for a value, the annotation itself."""

    name: str
    type_text: str
    default: Any
    convert: Callable[[Any], Any]
    hint: Any = Any

    @property
    def required(self) -> bool:
        """True when the caller must give a value."""
        return self.default is MISSING

    def fresh_default(self) -> Any:
        """The default, as nobody else has it: one value of a list that many effects share could be changed for all."""
        default = self.default if type(self.default) in _UNCHANGEABLE else copy.deepcopy(self.default)
        return self.convert(default)


def type_text(hint: Any) -> str:
    """The annotation as a person writes it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    text = str(hint)
    for module in ("typing.", "fxcell.policies.effects.", "fxcell.policies.policy."):
        text = text.replace(module, "")
    return text


def converter(hint: Any) -> Callable[[Any], Any]:
    """The check of one annotation: it returns the value to keep, or raises TypeError, ValueError or OverflowError.

    Raises: TypeError - an annotation that cannot be checked.
    """
    if hint is Any or hint is object:
        return lambda value: value
    if hint is float:
        return _to_float
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _union([converter(arg) for arg in args], optional=types.NoneType in args)
    if origin is typing.Literal:
        return _literal(args)
    if origin is dict:
        key, item = converter(args[0]), converter(args[1])
        return lambda value: {key(k): item(v) for k, v in _exactly(dict, value).items()}
    if origin in (list, set, frozenset) or (origin is tuple and args[1:] == (...,)):
        each = converter(args[0])
        return lambda value: origin(each(item) for item in _exactly(origin, value))
    if origin is tuple:
        return _fixed_tuple([converter(arg) for arg in args])
    if hint is bytes:
        return _to_bytes
    if not isinstance(hint, type) or origin is not None:
        raise TypeError("fields are of plain classes, Any, unions, Literal, list, tuple, set, frozenset or dict")
    return functools.partial(_exactly, hint)


_SUBCLASSED = (int, str, bytes, bool, float)
"""Built-in types whose subclasses are other values to the codec and to the rules of a policy."""


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind and (kind in _SUBCLASSED or not isinstance(value, kind)):
        raise TypeError(kind)
    return value


def _literal(choices: tuple[Any, ...]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise TypeError(value)
        return value

    return convert


def _fixed_tuple(converters: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        items = zip(converters, _exactly(tuple, value), strict=True)
        return tuple(converter(item) for converter, item in items)

    return convert


def _to_float(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(value)
    return float(value)


def _to_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(value)
    return bytes(value)


def _union(converters: list[Callable[[Any], Any]], *, optional: bool) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if value is None and optional:
            return None
        for converter in converters:
            try:
                return converter(value)
            except (TypeError, ValueError, OverflowError):
                continue
        raise TypeError(value)

    return convert
