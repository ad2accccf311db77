"""The thread that starts templates: what becomes of a start whose caller is interrupted."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import tempfile

import pytest

from fxcell.host import launcher
from tests.leaks import assert_nothing_left

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


class Interrupted(BaseException):
    """As Ctrl-C, but only ever raised by this test."""


def interrupt(_number, _frame):
    raise Interrupted


class NobodyServes(queue.SimpleQueue):
    """Keeps the request, and lets the caller be interrupted once it waits for its answer."""

    def put(self, request):
        super().put(request)
        signal.setitimer(signal.ITIMER_REAL, 0.05)


def test_start_whose_caller_was_interrupted_gets_the_callers_own_descriptor_and_is_ended(monkeypatch):
    served = launcher._requests
    launcher.ensure_thread()
    ours, theirs = socket.socketpair()
    inode = os.fstat(theirs.fileno()).st_ino
    before = signal.signal(signal.SIGALRM, interrupt)
    with ours, assert_nothing_left():
        with theirs, tempfile.TemporaryFile() as output, monkeypatch.context() as nobody_serves:
            nobody_serves.setattr(launcher, "_requests", NobodyServes())
            try:
                with pytest.raises(Interrupted):
                    launcher.start(SLEEPER, handed=theirs.fileno(), env={}, output=output)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            request = launcher._requests.get_nowait()
        command, options, (handed, _), answer = request
        with open(os.devnull, "rb"):  # it takes the number that the caller closed
            assert os.fstat(handed).st_ino == inode
            assert (command[-1], options["pass_fds"]) == (str(handed), (handed,))
            served.put(request)
            process = answer.result(timeout=10)
            assert process.wait(timeout=10) == -signal.SIGKILL
        assert ours.recv(1) == b"", "a copy of the descriptor is still open"
