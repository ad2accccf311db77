"""httpcore's debug log, silenced for requests that carry a secret: it writes down the header of each answer, echoes included."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

_silent: ContextVar[bool] = ContextVar("_silent", default=False)


def _allowed(_record: logging.LogRecord) -> bool:
    return not _silent.get()


# The names of httpcore's loggers for HTTP/1.1 without a proxy, which is all that is used of it here.
for _name in ("httpcore.connection", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_allowed)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing that httpcore does in this thread meanwhile is logged."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)
