"""Dies in the middle of a request, in the ways native code and hostile code die."""

from __future__ import annotations

import os
import signal
from typing import Any


def read_address_zero(do: Any) -> None:
    """Read where no memory is."""
    import ctypes

    do.did.append(repr(ctypes.string_at(0)))


def abort(do: Any) -> None:
    """Have the C library end it."""
    do.did.append("aborting")
    os.abort()


def overflow_the_stack(do: Any) -> None:
    """Recurse in C without end."""
    import sys

    sys.setrecursionlimit(2**31 - 1)

    class Deep:
        def __repr__(self) -> str:
            return repr(self)

    do.did.append(repr(Deep()))


def leave(do: Any) -> None:
    """End with success instead of answering."""
    do.did.append("leaving")
    os._exit(0)


def kill_self(do: Any) -> None:
    """Die of SIGKILL, as for want of memory."""
    do.did.append("killing")
    os.kill(os.getpid(), signal.SIGKILL)


def run_broken_bytecode(do: Any) -> None:
    """Run a code object that no compiler made."""

    def victim() -> int:
        return 0

    victim.__code__ = victim.__code__.replace(co_code=b"d\xff" * 64, co_consts=(), co_stacksize=1)
    do.refused.append([f"an int: {type(victim()).__name__}", "answered"])


def nest_for_the_parser(do: Any) -> None:
    """Have 100,000 parentheses compiled."""
    try:
        compile("(" * 100_000 + ")" * 100_000, "deep", "eval")
    except (MemoryError, SyntaxError, RecursionError) as error:
        do.refused.append(["compile", type(error).__name__])
