"""What a person reads before they agree to an effect: every field, and of each as much as there is room for.

    fields -> one quoted text each -> shares of the room -> FX.Name(path='/srv/…', content=b'ab' …[cut]… b'yz')

A worker chose the values, and must not hide one: no field is pushed out by another, a cut is in the middle and says how
long the whole is and which (its SHA-256), and blanks in a row are written as escapes. Texts are always in single
quotation marks, with those inside them escaped, and marks of a cut stand outside them: a value cannot look like either.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from fxcell.host.effects.basic import visible
from fxcell.policies import values
from fxcell.policies.bounded import bounded
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EncodeError
from fxcell.policies.names import size_text

ROOM_CHARACTERS = 2048
"""For all fields of one effect together: a terminal of 80 columns shows it without scrolling what was first away."""

SHARE_CHARACTERS = 160
"""What a field has at least, however many there are."""

_WALKED_CHARACTERS = 16 * 1024
_BLANKS = re.compile(r" {2,}")


def asked_text(effect: Effect) -> str:
    """The effect as one visible line; its cost grows with the values only by one hash over what is cut."""
    given = {name: getattr(effect, name) for name in effect.effect_fields}
    whole = {name: _whole(value) for name, value in given.items()}
    shares = _shares({name: len(text) for name, text in whole.items()})
    shown = [f"{name}={_within(given[name], whole[name], shares[name])}" for name in given]
    return f"FX.{effect.effect_name}({', '.join(shown)})"


def _shares(lengths: dict[str, int]) -> dict[str, int]:
    """Room for each field: what short ones leave is for long ones."""
    left, shares = ROOM_CHARACTERS, {}
    for number, name in enumerate(sorted(lengths, key=lengths.__getitem__)):
        shares[name] = max(left // (len(lengths) - number), SHARE_CHARACTERS)
        left = max(0, left - min(lengths[name], shares[name]))
    return shares


def _whole(value: Any) -> str:
    """The value's text, or the beginning of one that is far longer than any share."""
    if isinstance(value, str | bytes):
        return _quoted(value[:_WALKED_CHARACTERS])
    return _plain(bounded(value, _WALKED_CHARACTERS)[0])


def _within(value: Any, whole: str, share: int) -> str:
    if len(whole) <= share and not (isinstance(value, str | bytes) and len(value) > _WALKED_CHARACTERS):
        return whole
    half = share // 2
    if isinstance(value, str | bytes):
        head, tail = _end(value, half, last=False), _end(value, half, last=True)
        unit = "characters" if isinstance(value, str) else "bytes"
        cut = len(value) - len(head) - len(tail)
        return f"{_quoted(head)} …[{cut} of {len(value)} {unit} are cut here; SHA-256 of all: {_sum(value)}]… {_quoted(tail)}"
    return f"{whole[:share]} …[the rest of this {type(value).__name__}{size_text(value)} is cut; SHA-256 of all: {_sum(value)}]…"


def _end(value: Any, room: int, *, last: bool) -> Any:
    """As much of one end of a text as is at most `room` characters long when it is quoted."""
    size = min(len(value), room)
    while size and len(_quoted(value[-size:] if last else value[:size])) > room:
        size = size * 3 // 4
    return (value[-size:] if last else value[:size]) if size else value[:0]


def _quoted(value: str | bytes) -> str:
    """The repr, always with single quotation marks."""
    # A double one inside makes repr take single ones, and escape those that are there.
    text = "'" + repr('"' + value)[2:] if isinstance(value, str) else "b'" + repr(b'"' + value)[3:]
    return _plain(text)


def _plain(text: str) -> str:
    """Visible, with blanks in a row and spaces other than the usual one as escapes."""
    text = _BLANKS.sub(lambda blanks: r"\x20" * len(blanks[0]), visible(text))
    if text.isascii():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if char != " " and unicodedata.category(char) == "Zs" else char for char in text
    )


def _sum(value: Any) -> str:
    """SHA-256 of a text in UTF-8 or of bytes; of another value, of its form on the wire."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    elif not isinstance(value, bytes):
        try:
            value = values.encode_value(value)
        except EncodeError:
            return "none"
    return hashlib.sha256(value).hexdigest()
