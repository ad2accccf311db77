"""Wrong names and values in error texts: a value cut short, which valid name is nearest, and what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fxcell.policies.bounded import bounded

_CHARACTERS = 80


def short(value: object) -> str:
    """The repr of any value in about 80 characters, without building the whole of it; never raises."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= _CHARACTERS else f"{value[: _CHARACTERS - 3]!r}…"
    try:
        text, cut = bounded(value, _CHARACTERS)
    except Exception:  # noqa: BLE001 - the repr of a value that the codec does not know may raise anything
        return f"<{type(value).__name__}>"
    return f"{text}…" if cut else text


def nearest(wrong: object, known: Iterable[str]) -> str:
    """The end of an error text about an unknown name: "; did you mean 'x'? Known: a, b, x."."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, 1) if isinstance(wrong, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names) or 'none'}."


def size_text(value: object) -> str:
    """" of 3" for what has a length; "" for what has none, or only says that it has (an array without dimensions)."""
    try:
        return f" of {len(value)}"  # type: ignore[arg-type]
    except TypeError:
        return ""
