"""One thread that lives as long as the process and starts every template.

PR_SET_PDEATHSIG fires when the *thread* that forked a process ends, not when its process does (prctl(2)). Started from
the user's own threads, a template would die with whichever of them came first.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import IO, Any, cast

_Request = tuple[Sequence[str], dict[str, Any], "Future[subprocess.Popen[bytes]]"]
_requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
_thread: threading.Thread | None = None
_starting = threading.Lock()


def start(
    command: Sequence[str], *, pass_fds: Sequence[int], env: dict[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program with nothing but the named descriptors and environment, in a session of its own.

    output: where its stdout and stderr go.      Raises: OSError, as subprocess.Popen.
    """
    _ensure_thread()
    answer: Future[subprocess.Popen[bytes]] = Future()
    options = {
        "stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "env": env, "cwd": "/", "close_fds": True,
        "pass_fds": tuple(pass_fds), "start_new_session": True,
    }  # fmt: skip
    _requests.put((command, options, answer))
    return answer.result()


def _ensure_thread() -> None:
    global _thread
    with _starting:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_serve, name="fxcell-launcher", daemon=True)
            _thread.start()


def _serve() -> None:
    while True:
        command, options, answer = _requests.get()
        try:
            answer.set_result(cast("subprocess.Popen[bytes]", subprocess.Popen(command, **options)))
        except BaseException as error:  # noqa: BLE001 - the asking thread raises it
            answer.set_exception(error)


def _forget_after_fork() -> None:
    # The child of a fork has no such thread, and may have got the lock and the queue in any state.
    global _thread, _requests, _starting
    _thread, _requests, _starting = None, queue.SimpleQueue(), threading.Lock()


with contextlib.suppress(AttributeError):
    os.register_at_fork(after_in_child=_forget_after_fork)
