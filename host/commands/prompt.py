"""The question of `ask = true` at a terminal: on stderr, the answer from stdin, one question at a time."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time

from fxcell.host.asking import Answer, Question
from fxcell.host.effects.basic import visible

_ANSWERS = {"y": Answer.ONCE, "yes": Answer.ONCE, "a": Answer.ALWAYS, "always": Answer.ALWAYS}
_MAX_ANSWER_BYTES = 1024
_one_at_a_time = threading.Lock()


def ask_at_the_terminal(question: Question) -> Answer:
    """Show the question and read one line. Anything but y(es) and a(lways), and no line in time, is no.

    Before: stdin is a terminal. What was typed before the question came is thrown away: it answers something else.
    """
    with _one_at_a_time:
        stdin = sys.stdin.fileno()
        termios.tcflush(stdin, termios.TCIFLUSH)
        who = f"worker {question.worker} under policy {question.policy!r}"
        print(f"fxcell: {visible(who)} asks for", file=sys.stderr)
        print(f"fxcell:   {visible(question.text)}", file=sys.stderr)
        print("fxcell: allow it? [y]es once, [a]lways for this worker, [N]o: ", end="", file=sys.stderr, flush=True)
        ready, _, _ = select.select([stdin], [], [], max(0.0, question.deadline - time.monotonic()))
        if not ready:
            print("no answer in time: denied", file=sys.stderr)
            return Answer.NO
        line = os.read(stdin, _MAX_ANSWER_BYTES).decode("utf-8", "replace")
        return _ANSWERS.get(line.strip().lower(), Answer.NO)
