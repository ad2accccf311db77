"""Arguments as one short line that holds no secret.

Texts given to hide() are replaced wherever they appear, in any case of letters, as they are and as percent-encoding and repr
write them. Values under names such as Authorization or Cookie are never shown, nor is what stands before the @ of a URL.
Bytes are never shown, only counted. Whatever a worker chose takes 8 KiB of a line at most: see summary().
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fxcell.host.effects.basic import visible
from fxcell.policies.plain_rule import toml_text

REDACTED = "[redacted]"
SHOWN_CHARACTERS = 200
"""Of one text, escapes of what cannot be seen included."""
TABLE_CHARACTERS = 800
"""Of all keys and values of one table together."""
_NAMES = re.compile(r"auth|cookie|token|secret|passw|api.?key|credential|session|signature", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(
    r"([?&;][^=&#\s]*(?:auth|token|secret|passw|key|credential|session|signature|sig)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE
)
URL_SAFE = "%!#$&'()*+,/:;=?@[]~\\"
"""What stays as it is when the host writes down where a redirect leads."""

_hidden: frozenset[str] = frozenset()
_pattern: re.Pattern[str] | None = None
_longest = 0
_table = threading.Lock()


def hide(secret: str) -> None:
    """Show a text in no audit line from now on. Raises ValueError below 4 characters: it would be found everywhere."""
    global _hidden, _pattern, _longest
    if len(secret) < 4:
        raise ValueError(f"a secret of {len(secret)} characters cannot be told from other text; it needs at least 4")
    twins = spellings(secret)
    with _table:
        if not twins <= _hidden:  # a secret that is sent again costs nothing
            _hidden |= twins
            _longest = max(map(len, _hidden))
            longest_first = sorted(_hidden, key=len, reverse=True)
            _pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def spellings(secret: str) -> frozenset[str]:
    """The ways in which the host itself writes a text: as it is, in URLs, in errors and in suggestions."""
    return frozenset({
        secret, quote(secret, safe=""), quote(secret), quote(secret, safe=URL_SAFE, encoding="latin-1", errors="replace"),
        repr(secret)[1:-1], visible(secret), toml_text(secret)[1:-1],
    })  # fmt: skip


def redact(text: str) -> str:
    """The first characters of a text as one visible line without secrets; long ones are cut at 200 characters."""
    # A secret that the cut goes through is not found: the end of what was cut is never shown.
    head = text[: 4 * SHOWN_CHARACTERS + _longest]
    if _pattern is not None:
        head = _pattern.sub(REDACTED, head)
    if len(text) > 4 * SHOWN_CHARACTERS + _longest:
        head = head[: max(0, len(head) - _longest)]
    if "://" in head:
        head = _USERINFO.sub(f"{REDACTED}@", head)
        head = _QUERY.sub(rf"\1{REDACTED}", head)
    return visible(head[:SHOWN_CHARACTERS])[:SHOWN_CHARACTERS]


def summary(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an effect was asked with, field by field; neither its cost nor its length grows with the values.

    A character is four bytes of UTF-8 at most: a text takes 800 bytes, a table 3,200.
    """
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
        return _first_entries(value)
    return _brief(value)


def _first_entries(value: Mapping[str, Any]) -> dict[str, str]:
    """Its first entries, as many as TABLE_CHARACTERS have room for; the number of the others is told."""
    shown: dict[str, str] = {}
    room = TABLE_CHARACTERS
    for number, (key, item) in enumerate(value.items()):
        name, text = redact(key), REDACTED if _NAMES.search(key) else _brief(item)
        room -= len(name) + len(text)
        if room < 0:
            shown["…"] = f"{len(value) - number} more"
            break
        shown[name] = text
    return shown


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return redact(value)
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"
