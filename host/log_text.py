"""An exception for the host's log, in lines of which none can be taken for a record of its own.

The text of an exception of the host's code can hold whatever a plugin sent, line ends included.
"""

from __future__ import annotations

import traceback

from fxcell.host.effects.basic import visible

_FRAME = '  File "'


def traceback_text(error: BaseException) -> str:
    """The traceback, every line indented and visible; the text of an exception is one line, whatever it holds."""
    lines: list[str] = []
    for piece in traceback.TracebackException.from_exception(error).format():
        # A frame is a piece of several lines, from files of the host; every other piece can hold what a plugin sent.
        lines += piece.splitlines() if piece.startswith(_FRAME) else [piece.removesuffix("\n")]
    return "\n".join(f"    {visible(line)}" for line in lines)
