"""Tries one attack and tells what worked and what was refused. Runs inside a worker.

Every attack is harmless where it works: it touches only sentinels that the selftest made, takes back at once what it
makes elsewhere, gives system calls arguments that no kernel acts on, and ends every loop at a number.
"""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from typing import Any

STOPPED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTTY, errno.EROFS, errno.EOPNOTSUPP})
"""Answers to a system call with senseless arguments that mean it was not let through; others come from its code."""


class Attempts:
    """What an attack achieved (did) and what stood in its way (refused: what, errno's name)."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.refused: list[list[str]] = []

    def __call__(self, what: str, act: Callable[[], Any]) -> bool:
        """Try something that raises OSError when it is refused."""
        try:
            got = act()
        except OSError as error:
            self.refused.append([what, errno.errorcode.get(error.errno or 0, type(error).__name__)])
            return False
        self.did.append(f"{what}: {got!r:.60}")
        return True

    def syscall(self, what: str, number: int, *arguments: Any) -> int:
        """Make a system call by its number. Reaching the kernel's own code counts as done, whatever it answers."""
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        sent = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        result = int(libc.syscall(ctypes.c_long(number), *sent))
        code = ctypes.get_errno() if result == -1 else 0
        if code in STOPPED:
            self.refused.append([what, errno.errorcode[code]])
        else:
            answer = errno.errorcode.get(code, str(code)) if code else str(result)
            self.did.append(f"{what}: the kernel answered {answer}")
        return result


def main(attack: str, **arguments: Any) -> dict[str, list[Any]]:
    """Perform `module.function` of this folder with a fresh Attempts and these arguments."""
    module, _, function = attack.partition(".")
    attempts = Attempts()
    getattr(importlib.import_module(module), function)(attempts, **arguments)
    return {"did": attempts.did, "refused": attempts.refused}
