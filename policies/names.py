"""Wrong names in error texts: which valid one is nearest, and what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wrong: object, known: Iterable[str]) -> str:
    """The end of an error text about an unknown name: "; did you mean 'x'? Known: a, b, x."."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, 1) if isinstance(wrong, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names) or 'none'}."
