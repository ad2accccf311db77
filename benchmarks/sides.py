"""The asking end of a side: one library under measurement, in a process of its own.

side = Side("fxcell", "benchmarks.peers.ours:starts", count=10)
side.start()  the process, which loads its library and waits
side.ask()    one turn: the samples that the generator behind the name gives next
side.stop()   the generator is closed, and whatever it left behind in its session is killed
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 90.0
STOP_S = 30.0


class SideAbsent(Exception):
    """The library, program or right that this side needs is not here; the text says which."""


class SideFailed(Exception):
    """The side is here, and gave no figure; the text says why."""


class Side:
    """Name for the table, `module:generator` and its arguments, which must be plain data."""

    def __init__(self, name: str, generator: str, /, **arguments: Any) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "benchmarks.side", generator, json.dumps(arguments)]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: BinaryIO | None = None
        self._read = b""
        self._is_ready = False

    def start(self) -> None:
        """Start the process, which loads its library meanwhile; ask() does it too."""
        if self._process is not None:
            return
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        # A session of its own: all that it forks can be ended with it.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=ROOT, bufsize=0,
            start_new_session=True,
        )  # fmt: skip

    def wait_until_ready(self, patience_s: float = PATIENCE_S) -> None:
        """Return once its library is loaded, so that nobody's loading disturbs another's turn. Raises: as ask."""
        self.start()
        if not self._is_ready:
            self._answer(patience_s)
            self._is_ready = True

    def ask(self, patience_s: float = PATIENCE_S) -> list[float]:
        """The samples of one turn. Raises: SideAbsent; SideFailed - also when there is no answer after patience_s."""
        self.wait_until_ready(patience_s)
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the answer that is missing says so
            self._process.stdin.write(b"\n")
        return self._answer(patience_s)

    def _answer(self, patience_s: float) -> list[float]:
        answer = json.loads(self._line(time.monotonic() + patience_s, patience_s))
        if "absent" in answer:
            raise SideAbsent(answer["absent"])
        if "failed" in answer:
            raise SideFailed(answer["failed"])
        samples: list[float] = answer["samples"]
        return samples

    def _line(self, deadline: float, patience_s: float) -> bytes:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        ended = os.pidfd_open(process.pid)  # a pipe that forked workers hold open does not tell
        try:
            while b"\n" not in self._read:
                left_s = deadline - time.monotonic()
                ready = select.select([process.stdout, ended], [], [], max(left_s, 0))[0]
                if not ready:
                    raise SideFailed(f"no answer within {patience_s:g} s")
                if process.stdout in ready and (part := os.read(process.stdout.fileno(), 2**16)):
                    self._read += part
                elif ended in ready:
                    raise SideFailed(self._last_words())
        finally:
            os.close(ended)
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _last_words(self) -> str:
        assert self._process is not None
        assert self._errors is not None
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f"its process ended with {self._process.wait()}: {lines[-1][:200] if lines else 'no words'}"

    def stop(self, patience_s: float = STOP_S) -> None:
        """End the side; nothing that it started is left."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert self._errors is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: what a broken pool left behind is there too
        process.wait()
        process.stdout.close()
        self._errors.close()
