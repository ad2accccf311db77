"""What never goes into a record: values of headers that carry credentials.

Only tables under the name `headers` are looked at, in effects and in their results. Whatever else a plugin was given or
asked for (arguments, bodies, URLs, files) is in a record as it was.
"""

from __future__ import annotations

import re
from typing import Any

from fxcell.policies.effects import Effect

REDACTED = "[redacted]"

_SECRET = re.compile(
    r".*(authorization|authenticat|cookie|token|secret|passw|credential|api-?key|signature|session|private).*", re.DOTALL
)


def redacted(value: Any) -> Any:
    """The value with every secret header replaced; itself where there is none."""
    if isinstance(value, Effect):
        headers = getattr(value, "headers", None)
        if type(headers) is not dict or not any(map(is_secret, headers)):
            return value
        fields = {name: getattr(value, name) for name in value.effect_fields}
        return type(value)(**{**fields, "headers": _table(headers)})
    if type(value) is dict and type(value.get("headers")) is dict:
        return {**value, "headers": _table(value["headers"])}
    return value


def is_secret(header: object) -> bool:
    """True for the name of a header whose value is not to be kept: Authorization, Cookie, X-Api-Key and their like."""
    return isinstance(header, str) and _SECRET.fullmatch(header.lower()) is not None


def _table(headers: dict[Any, Any]) -> dict[Any, Any]:
    return {name: REDACTED if is_secret(name) else value for name, value in headers.items()}
