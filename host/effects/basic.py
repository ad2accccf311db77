"""Print, Log, Now, Sleep, RandomBytes: effects that need neither files nor network.

Whatever a worker wants shown to a person passes through `visible`: a terminal, a log file or a web page that shows it
sees one line of harmless text, never a control sequence.
"""

from __future__ import annotations

import logging
import math
import os
import time
import unicodedata
from typing import Any

from fxcell.host.effects.context import Context, pace_of
from fxcell.policies.bounded import bounded, bounded_text
from fxcell.policies.builtin import Log, Now, Print, RandomBytes, Sleep
from fxcell.policies.errors import EffectFailed
from fxcell.policies.names import short

MAX_LINE_BYTES = 64 * 1024
MAX_RANDOM_BYTES = 16 * 1024 * 1024

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CUT = " [cut]"
_log = logging.getLogger("fxcell.plugin")


def perform_print(effect: Print, context: Context) -> None:
    """Hand str(content) to context.output as one visible line, cut to MAX_LINE_BYTES. Raises: EffectDenied, as perform_log."""
    line = visible(_text("Print", effect.content, MAX_LINE_BYTES))
    context.spend("Print", len(line.encode()) + 1)
    context.output(line)


def perform_log(effect: Log, context: Context) -> None:
    """Write one record to `fxcell.plugin`; data is appended as key=value, and travels in the record's plugin_data.

    What no longer fits into the line is left out of both. Raises: EffectDenied - limits.output has no room for it.
    """
    level = _LEVELS.get(effect.level)
    if level is None:
        raise EffectFailed("Log", "bad_request", f"level must be one of {', '.join(_LEVELS)}, not {short(effect.level)}")
    if not _log.isEnabledFor(level):
        return
    data: dict[str, str] = {}
    left = MAX_LINE_BYTES
    for key, value in effect.data.items():
        if left < 0:
            break
        data[visible(key)] = shown = visible(_text("Log", value, left, quoted=True))
        left -= len(key) + len(shown)
    line = " ".join([visible(effect.message), *(f"{key}={value}" for key, value in data.items())])
    line = _cut(line)
    context.spend("Log", len(line.encode()) + 1)
    _log.log(level, "%s", line, extra={"worker": context.worker, "plugin_data": data})


def perform_now(_effect: Now, _context: Context) -> float:
    """The wall clock, in seconds since 1970."""
    return time.time()


def perform_sleep(effect: Sleep, context: Context) -> None:
    """Wait; a worker that died ends it at once, a deadline ends it with EffectFailed(timeout)."""
    if not (effect.seconds >= 0 and math.isfinite(effect.seconds)):
        raise EffectFailed("Sleep", "bad_request", f"seconds must be 0 or more and finite, not {effect.seconds}")
    pace_of(effect, context).wait(effect.seconds)


def perform_random_bytes(effect: RandomBytes, _context: Context) -> bytes:
    """Bytes of getrandom(2)."""
    if not 0 <= effect.count <= MAX_RANDOM_BYTES:
        raise EffectFailed("RandomBytes", "bad_request", f"count must be 0 to {MAX_RANDOM_BYTES}")
    return os.urandom(effect.count)


def visible(text: str) -> str:
    """Text as one harmless line of at most MAX_LINE_BYTES in UTF-8; backslashes of the text itself stay as they are.

    Everything without a glyph of its own is written as an escape: control characters (and so ANSI and OSC sequences),
    line ends, lone surrogates, bidirectional and other invisible format characters, private and unassigned code points.
    """
    head = text[: MAX_LINE_BYTES + 1]  # a character is at least one byte
    if not head.isprintable():
        head = "".join(char if char.isprintable() or _is_space(char) else _escape(char) for char in head)
    return _cut(head)


def _is_space(char: str) -> bool:
    """True for wide, narrow and no-break spaces, which are width and nothing else."""
    return unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _cut(line: str) -> str:
    encoded = line.encode()
    if len(encoded) <= MAX_LINE_BYTES:
        return line
    return encoded[: MAX_LINE_BYTES - len(_CUT)].decode(errors="ignore") + _CUT


def _text(effect: str, value: Any, characters: int, *, quoted: bool = False) -> str:
    """The str or repr of a value that a worker sent, one character longer where it was cut so that the line says so."""
    try:
        return bounded(value, characters + 1)[0] if quoted else bounded_text(value, characters + 1)
    except (ValueError, RecursionError) as error:
        what = f"a {type(value).__name__} cannot be written as text ({type(error).__name__})"
        raise EffectFailed(effect, "bad_request", what) from error
