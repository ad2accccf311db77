"""What the kernel itself answers under a compiled filter, without performing a call: see tests/programs/under_filter.py."""

from __future__ import annotations

import errno
import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from fxcell.sandbox import enforced
from fxcell.sandbox.kernel import seccomp
from fxcell.sandbox.syscalls import REPORT_FD

PROGRAM = Path(__file__).parent.parent / "programs" / "under_filter.py"
MARKER = errno.ENOANO
"""An errno that no filter of ours answers."""


def ask(program: bytes, calls: Sequence[tuple[int, ...]]) -> list[str]:
    """For each call (number and five arguments): "allow", "notify" or "errno N"."""
    traced, notified = (_run(program, calls, mode) for mode in ("trace", "notify"))
    return [_answer(one, other) for one, other in zip(traced, notified, strict=True)]


def _answer(traced: int, notified: int) -> str:
    if (traced, notified) == (errno.ENOSYS, MARKER):
        return "allow"
    if (traced, notified) == (MARKER, errno.ENOSYS):
        return "notify"
    return f"errno {traced}" if traced == notified else f"undecided: {traced}, {notified}"


def _run(program: bytes, calls: Sequence[tuple[int, ...]], mode: str) -> list[int]:
    ours, theirs = socket.socketpair()
    with ours:
        # The descriptor's number is one of those over which the filter lets the listener through.
        script = f"import os, sys; os.dup2({theirs.fileno()}, {REPORT_FD}); sys.argv = sys.argv[1:]; exec(open(sys.argv[0]).read())"
        command = [sys.executable, "-I", "-c", script, PROGRAM, program.hex(), str(REPORT_FD), mode]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            cwd=PROGRAM.parent.parent.parent,
        )
        theirs.close()
        answering = threading.Thread(target=_answer_all, args=(ours,))
        answering.start()
        output, errors = child.communicate(
            json.dumps([[_signed(word) for word in call] for call in calls]).encode(), timeout=60
        )
        answering.join()
    assert child.returncode == 0, (child.returncode, errors.decode())
    return json.loads(output)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _answer_all(line: socket.socket) -> None:
    """Answer every notification with MARKER until the caller ends."""
    listener = enforced.receive_listener(line)
    if listener is None:
        return
    with open(listener, "rb", buffering=0):
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        while all(events & select.POLLIN for _, events in poller.poll()):
            try:
                seccomp.refuse(listener, seccomp.receive(listener), MARKER)
            except OSError:
                continue  # the caller has ended meanwhile
