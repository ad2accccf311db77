"""Arguments as one short line that holds no secret.

Texts given to hide() are replaced wherever they appear, as they are and as percent-encoding and repr write them. Values
under names such as Authorization or Cookie are never shown, nor is what stands before the @ of a URL. Bytes are never
shown, only counted.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fxcell.host.effects.basic import visible

REDACTED = "[redacted]"
SHOWN_CHARACTERS = 200
_NAMES = re.compile(r"auth|cookie|token|secret|passw|api.?key|credential|session|signature", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(
    r"([?&;][^=&#\s]*(?:auth|token|secret|passw|key|credential|session|signature|sig)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE
)
_hidden: frozenset[str] = frozenset()
_longest = 0
_table = threading.Lock()


def hide(secret: str) -> None:
    """Show a text in no audit line from now on. Raises ValueError below 4 characters: it would be found everywhere."""
    global _hidden, _longest
    if len(secret) < 4:
        raise ValueError(f"a secret of {len(secret)} characters cannot be told from other text; it needs at least 4")
    twins = {secret, quote(secret, safe=""), quote(secret), repr(secret)[1:-1], visible(secret)}
    with _table:
        _hidden |= twins
        _longest = max(map(len, _hidden))


def redact(text: str) -> str:
    """The first characters of a text as one visible line without secrets; long ones are cut at 200 characters."""
    # A secret that the cut goes through is not found: the end of what was cut is never shown.
    head = text[: 4 * SHOWN_CHARACTERS + _longest]
    for secret in sorted(_hidden, key=len, reverse=True):
        if secret in head:
            head = head.replace(secret, REDACTED)
    if len(text) > 4 * SHOWN_CHARACTERS + _longest:
        head = head[: max(0, len(head) - _longest)]
    if "://" in head:
        head = _USERINFO.sub(f"{REDACTED}@", head)
        head = _QUERY.sub(rf"\1{REDACTED}", head)
    return visible(head[:SHOWN_CHARACTERS])


def summary(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an effect was asked with, field by field; its cost does not grow with the values."""
    return {name: _shown(name, value) for name, value in fields.items()}


def _shown(name: str, value: Any) -> Any:
    if _NAMES.search(name):
        return REDACTED
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else repr(value)
    if isinstance(value, int):
        return value if value.bit_length() <= 53 else f"int of {value.bit_length()} bits"
    if isinstance(value, Mapping) and len(value) <= 32 and all(isinstance(key, str) for key in value):
        return {redact(key): REDACTED if _NAMES.search(key) else _brief(item) for key, item in value.items()}
    return _brief(value)


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return redact(value)
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"
