"""The vocabulary that a worker is told: effects of one's own as data, so that plugin code can build them.

    host: described(policy) -> bytes --message `vocabulary`--> worker: adopt(bytes) -> FX.Name is there

Nothing is imported, evaluated or executed for it: a type is a name from LEAVES, or a list of a form and its parts, and
is checked by the same converters as a class that was written out. The worker's class is a convenience of the plugin
and no border: the host decodes what comes with its own class. Methods of a class do not travel.
"""

from __future__ import annotations

import datetime
import decimal
import types
import typing
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fxcell.policies import values
from fxcell.policies.effects import FX, Effect, is_own
from fxcell.policies.errors import DecodeError, EffectError, FxcellError

if TYPE_CHECKING:
    from fxcell.policies.policy import Policy

MAX_EFFECT_BYTES = 64 * 1024
"""One described effect: names, docstring and defaults together."""

_CLASSES = (
    str, int, float, bool, bytes, complex, list, dict, tuple, set, frozenset, datetime.datetime, datetime.date,
    datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID,
)  # fmt: skip
LEAVES: Mapping[str, Any] = {"Any": Any, "None": type(None)} | {kind.__name__: kind for kind in _CLASSES}
"""Name in a description -> the type. Values of all of them travel (fxcell.policies.values)."""

_FORMS: Mapping[str, Any] = {"list": list, "set": set, "frozenset": frozenset, "dict": dict, "tuple": tuple}
_told: dict[type[Effect], dict[str, Any]] = {}
_CHOICES = (str, int, bool, bytes, type(None))


def described(policy: Policy) -> bytes | None:
    """The effects of one's own that the policy grants, encoded; None when it grants only what every worker knows."""
    own = [FX[name] for name in policy.effects if is_own(FX[name])]
    told = [_with_placeholders(_described(cls), getattr(policy.effects[cls.effect_name], "secrets", {})) for cls in own]
    return values.encode_value(told) if told else None


def _with_placeholders(told: dict[str, Any], filled: Collection[str]) -> dict[str, Any]:
    """The description as a worker needs it whose policy has the host fill these fields: none of them must be given."""
    if not filled:
        return told
    fields = [{"default": "", **field} if field["name"] in filled else field for field in told["fields"]]
    return {**told, "fields": fields}


def check_describable(cls: type[Effect]) -> None:
    """Raise EffectError, naming the field, unless a worker can be told of the effect."""
    _described(cls)


def adopt(data: bytes) -> None:
    """Make the described effects known in this process; a name that is known already (by `preload`) stays as it is.

    Raises: DecodeError, EffectError - not what `described` writes.
    """
    for effect in values.decode_value(data, allow_calls=False):
        name, fields = effect["name"], effect["fields"]
        if name in FX.names():
            continue
        body: dict[str, Any] = {
            "__module__": __name__,
            "__doc__": effect["doc"],
            "__annotations__": {field["name"]: _type(field["type"]) for field in fields},
        }
        body |= {field["name"]: field["default"] for field in fields if "default" in field}
        cls: type[Effect] = type(name, (Effect,), body)
        for field in fields:  # errors name the type as the author wrote it, not as it is rebuilt here
            cls.effect_fields[field["name"]] = replace(cls.effect_fields[field["name"]], type_text=field["text"])


def _described(cls: type[Effect]) -> dict[str, Any]:
    if cls not in _told:
        _told[cls] = _description(cls)
    return _told[cls]


def _description(cls: type[Effect]) -> dict[str, Any]:
    fields = []
    for name, field in cls.effect_fields.items():
        try:
            told = {"name": name, "text": field.type_text, "type": _tree(field.hint)}
        except TypeError as error:
            raise EffectError(
                f"FX.{cls.effect_name}.{name} is of type {field.type_text}, which no worker can be told of: {error}. "
                f"Use Any, unions, Literal, containers, or one of {', '.join(LEAVES)}."
            ) from error
        fields.append(told if field.required else {**told, "default": field.default})
    told_of = {"name": cls.effect_name, "doc": cls.__doc__ or "", "fields": fields}
    try:
        size = len(values.encode_value(told_of))
    except FxcellError as error:
        raise EffectError(f"a default of FX.{cls.effect_name} cannot be sent to a worker: {error}") from error
    if size > MAX_EFFECT_BYTES:
        raise EffectError(f"FX.{cls.effect_name} takes {size:,} bytes to describe, {MAX_EFFECT_BYTES:,} are allowed")
    return told_of


def _tree(hint: Any) -> Any:
    """The annotation as plain data. Raises TypeError naming the part that has no such form."""
    if hint is object:
        return "Any"
    for name, leaf in LEAVES.items():
        if hint is leaf:
            return name
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return ["union", *map(_tree, parts)]
    if origin is typing.Literal:
        if any(type(part) not in _CHOICES for part in parts):
            raise TypeError("Literal may hold texts, bytes, whole numbers, booleans and None")
        return ["literal", *parts]
    if origin is tuple and parts[1:] == (...,):
        return ["tuple", _tree(parts[0]), "..."]
    if origin in _FORMS.values():
        return [origin.__name__, *map(_tree, parts)]
    raise TypeError(f"{getattr(hint, '__name__', hint)} is not of the types that travel")


def _type(tree: Any) -> Any:
    if type(tree) is str and tree in LEAVES:
        return LEAVES[tree]
    if type(tree) is not list or not tree:
        raise DecodeError(f"{tree!r:.80} describes no type")
    form, *parts = tree
    if form == "literal":
        return typing.Literal[tuple(parts)]
    if form == "union":
        return typing.Union[tuple(map(_type, parts))]  # noqa: UP007 - its parts are known only now
    if form not in _FORMS:
        raise DecodeError(f"{form!r:.80} is no form of a type")
    if parts[1:] == ["..."]:
        return types.GenericAlias(tuple, (_type(parts[0]), ...))
    return types.GenericAlias(_FORMS[form], tuple(map(_type, parts)))
