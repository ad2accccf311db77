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
from fxcell.policies.names import size_text
from fxcell.policies.plain_rule import toml_text

REDACTED = "[redacted]"
SHOWN_CHARACTERS = 200
"""Of one text, escapes of what cannot be seen included."""
_NAME_CHARACTERS = 256
TABLE_CHARACTERS = 800
"""Of all keys and values of one table together."""
_NAMES = re.compile(r"auth|cookie|token|secret|passw|api.?key|credential|session|signature", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY_NAME, _QUERY_VALUE = re.compile(r"[?&;][^=&#?;\s]*+="), re.compile(r"[^&#\s]*")
_QUERY_SECRETS = re.compile(r"auth|token|secret|passw|key|credential|session|signature|sig", re.IGNORECASE)
URL_SAFE = "%!#$&'()*+,/:;=?@[]~\\"
"""What stays as it is when the host writes down where a redirect leads."""

KEPT_PER_SOURCE = 4
_hidden: dict[str, list[str]] = {}
_pattern: re.Pattern[str] | None = None
_longest = 0
_table = threading.Lock()


def hide(secret: str, source: str = "") -> None:
    """Show a text in no audit line from now on. Raises ValueError below 4 characters: it would be found everywhere.

    source: where a secret came from that can be another one each time: then the last KEPT_PER_SOURCE of it are hidden.
    """
    global _pattern, _longest
    if len(secret) < 4:
        raise ValueError(f"a secret of {len(secret)} characters cannot be told from other text; it needs at least 4")
    with _table:
        known = _hidden.setdefault(source, [])
        if secret in known:  # one that is sent again costs nothing
            return
        known.append(secret)
        if source:
            del known[:-KEPT_PER_SOURCE]
        longest_first = sorted({form for secrets in _hidden.values() for one in secrets for form in spellings(one)}, key=len)[::-1]
        _longest = len(longest_first[0])
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
        head = _without_query_secrets(head)
    return visible(head[:SHOWN_CHARACTERS])[:SHOWN_CHARACTERS]


def _without_query_secrets(text: str) -> str:
    # Not one pattern for name and value: one that looks for a word within the name takes cubic time for some texts.
    parts: list[str] = []
    at = 0
    for name in _QUERY_NAME.finditer(text):
        if name.start() >= at and _QUERY_SECRETS.search(name[0]):
            value = _QUERY_VALUE.match(text, name.end())
            parts += text[at : name.end()], REDACTED
            at = name.end() if value is None else value.end()
    return "".join([*parts, text[at:]])


def summary(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an effect was asked with, field by field; neither its cost nor its length grows with the values.

    A character is four bytes of UTF-8 at most: a text takes 800 bytes, a table 3,200.
    """
    return {name: _shown(name, value) for name, value in fields.items()}


def _shown(name: str, value: Any) -> Any:
    if _is_secret(name):
        return REDACTED
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):  # numpy has one of its own that is one too
        return float(value) if value - value == 0 else repr(float(value))
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 53 else f"int of {value.bit_length()} bits"
    if isinstance(value, Mapping) and len(value) <= 32 and all(isinstance(key, str) for key in value):
        return _first_entries(value)
    return _brief(value)


def _is_secret(name: str) -> bool:
    """True for the name of what is not shown, and for one that is too long to be looked through."""
    return len(name) > _NAME_CHARACTERS or _NAMES.search(name) is not None


def _first_entries(value: Mapping[str, Any]) -> dict[str, str]:
    """Its first entries, as many as TABLE_CHARACTERS have room for; the number of the others is told."""
    shown: dict[str, str] = {}
    room = TABLE_CHARACTERS
    for number, (key, item) in enumerate(value.items()):
        name, text = redact(key), REDACTED if _is_secret(key) else _brief(item)
        room -= len(name) + len(text)
        if room < 0:
            shown["…"] = f"{len(value) - number} more"
            break
        shown[name] = text
    return shown


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return redact(value)
    return f"{type(value).__name__}{size_text(value)}"
