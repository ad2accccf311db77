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

_Request = tuple[list[str], dict[str, Any], list[int], "Future[subprocess.Popen[bytes]]"]
_requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
_thread: threading.Thread | None = None
_starting = threading.Lock()


def start(command: Sequence[str], *, handed: int, env: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a program with nothing but one descriptor and an environment, in a session of its own.

    handed: the descriptor; its number in the program is added to the command as the last word.
    output: where its stdout and stderr go.
    Raises: OSError, as subprocess.Popen.
    """
    ensure_thread()
    copies: list[int] = []
    try:
        # The thread's own: Ctrl-C in the caller closes the caller's, and another file may have their numbers a moment later.
        copies.append(os.dup(handed))
        copies.append(os.dup(output.fileno()))
    except OSError:
        _close(copies)
        raise
    answer: Future[subprocess.Popen[bytes]] = Future()
    options = {
        "stdin": subprocess.DEVNULL, "stdout": copies[1], "stderr": copies[1], "env": env, "cwd": "/", "close_fds": True,
        "pass_fds": (copies[0],), "start_new_session": True,
    }  # fmt: skip
    _requests.put(([*command, str(copies[0])], options, copies, answer))
    try:
        return answer.result()
    except BaseException:
        answer.add_done_callback(_end)
        raise


def ensure_thread() -> None:
    """Start the thread, unless it runs. Python 3.12.0 and 3.12.1 start none once the main thread has ended."""
    global _thread
    with _starting:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_serve, name="fxcell-launcher", daemon=True)
            _thread.start()


def _serve() -> None:
    while True:
        command, options, copies, answer = _requests.get()
        try:
            try:
                process = cast("subprocess.Popen[bytes]", subprocess.Popen(command, **options))
            finally:
                _close(copies)
            answer.set_result(process)
        except BaseException as error:  # noqa: BLE001 - the asking thread raises it
            answer.set_exception(error)


def _end(answer: Future[subprocess.Popen[bytes]]) -> None:
    """End a program that nobody waits for any more."""
    if answer.exception() is None:
        answer.result().kill()
        answer.result().wait()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _forget_after_fork() -> None:
    # The child of a fork has no such thread, and may have got the lock and the queue in any state.
    global _thread, _requests, _starting
    _thread, _requests, _starting = None, queue.SimpleQueue(), threading.Lock()


with contextlib.suppress(AttributeError):
    os.register_at_fork(after_in_child=_forget_after_fork)
