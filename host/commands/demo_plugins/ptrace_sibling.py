"""Hostile: attaches to another process as a debugger would."""

from __future__ import annotations

import ctypes

_PTRACE_ATTACH = 16


def main(pid: int) -> int:
    """What ptrace(2) answers, if the sandbox lets it through."""
    answer: int = ctypes.CDLL(None).ptrace(_PTRACE_ATTACH, pid, None, None)
    return answer
