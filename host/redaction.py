"""What never goes into a record: values of headers that carry credentials.

Only tables under the name `headers` are looked at, in effects and tables wherever they are in a value. Whatever else a plugin
was given or asked for (arguments, bodies, URLs, files) is in a record as it was.
"""

from __future__ import annotations

import operator
import re
from typing import Any

from fxcell.policies.calls import Call
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectError
from fxcell.policies.value_types import SCALARS

REDACTED = "[redacted]"
_LEAVES = SCALARS | {bytes}

_SECRET = re.compile(r"authorization|authenticat|cookie|token|secret|passw|credential|api-?key|signature|session|private")
_NAME_CHARACTERS = 256


def redacted(value: Any) -> Any:
    """The value with every secret header replaced, however deep; itself where there is none."""
    kind = type(value)
    if isinstance(value, Effect):
        fields = {name: getattr(value, name) for name in value.effect_fields}
        clean = _redacted_table(fields)
        return value if clean is fields else _made(kind, clean)
    if isinstance(value, Call):
        args, kwargs = redacted(list(value.args)), _redacted_table(value.kwargs)
        return Call(value.definition, tuple(args), kwargs)
    if kind is dict:
        return _redacted_table(value)
    if kind is list or kind is tuple:
        parts = [redacted(part) if type(part) not in _LEAVES else part for part in value]
        return value if all(map(operator.is_, parts, value)) else kind(parts)
    return value


def _redacted_table(table: dict[Any, Any]) -> dict[Any, Any]:
    clean = {key: redacted(item) if type(item) not in _LEAVES else item for key, item in table.items()}
    if type(clean.get("headers")) is dict and any(map(is_secret, clean["headers"])):
        clean["headers"] = _table(clean["headers"])
    return table if all(clean[key] is table[key] for key in table) else clean


def _made(kind: type[Effect], fields: dict[str, Any]) -> Effect:
    try:
        return kind(**fields)
    except EffectError:  # headers of another type than text: those that are secret are left out
        return kind(**{**fields, "headers": {k: v for k, v in fields["headers"].items() if not is_secret(k)}})


def is_secret(header: object) -> bool:
    """True for the name of a header whose value is not to be kept: Authorization, Cookie, X-Api-Key and their like.

    Also for one that is too long to be looked through.
    """
    if not isinstance(header, str):
        return False
    return len(header) > _NAME_CHARACTERS or _SECRET.search(header.lower()) is not None


def _table(headers: dict[Any, Any]) -> dict[Any, Any]:
    return {name: REDACTED if is_secret(name) else value for name, value in headers.items()}
