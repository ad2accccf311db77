"""Wrong names and values in error texts: a value cut short, which valid name is nearest, and what there is."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def short(value: object) -> str:
    """The repr of any value in about 80 characters, without building the whole of it; never raises."""
    if type(value) is str or type(value) is bytes:
        return repr(value) if len(value) <= 80 else f"{value[:77]!r}…"
    try:
        return _short.repr(value)
    except Exception:  # noqa: BLE001 - a repr may raise anything, an int of over 4300 digits does
        return f"<{type(value).__name__}>"


def nearest(wrong: object, known: Iterable[str]) -> str:
    """The end of an error text about an unknown name: "; did you mean 'x'? Known: a, b, x."."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, 1) if isinstance(wrong, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names) or 'none'}."
