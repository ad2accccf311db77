"""Rules with `ask = true`: who is asked whether a worker may have an effect, and how the answer is waited for.

    gate --Question--> the approver that the host named, in a thread of its own --Answer--> gate

    from fxcell.host import asking
    asking.answer_with(lambda question: asking.Answer.ONCE if my_window.ask(question.text) else asking.Answer.NO)

Each answer is a record of the logger `fxcell.asking`. Nobody named, an exception, no answer in time, or an answer that is
none: denied. An approver that hangs holds up its own question alone; when all threads hang, further questions are denied.
"""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fxcell.host.background import DaemonExecutor
from fxcell.host.log_text import traceback_text
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectError

ANSWER_S = 60.0
"""How long an answer is waited for, and never beyond the command's deadline."""

_LOOK_S = 0.05
_MAX_OPEN = 64
_room = threading.BoundedSemaphore(_MAX_OPEN)
_log = logging.getLogger("fxcell.asking")


class Answer(StrEnum):
    """What an approver may say.

    NO:     denied; also for what this command asks of the same effect later, so that nobody is asked until they give in.
    ONCE:   this one effect.
    ALWAYS: every effect of this name that the policy's rule grants, as long as this worker lives.
    """

    NO = "no"
    ONCE = "once"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Question:
    """What an approver is asked.

    effect:   the value, as the worker sent it: treat it as hostile.
    text:     the same on one line in which every control character is an escape: every field by name, long values cut in
              the middle with their length and SHA-256 (fxcell.host.asked_text).
    deadline: time.monotonic() seconds after which the answer no longer counts.
    """

    worker: str
    policy: str
    effect: Effect
    text: str
    deadline: float


Approver = Callable[[Question], Answer]

_approver: Approver | None = None


def answer_with(approver: Approver | None) -> None:
    """Name who is asked in this process; None names nobody, and then all that must be asked for is denied.

    approver: a function of one Question (worker, policy, effect, text, deadline), called in a thread of its own, that
              returns asking.Answer.NO, ONCE or ALWAYS. Anything else is not guessed at: True, "yes" and None are denied,
              the denial and the log say so.
              Show the person `question.text`, which is harmless on a terminal; `question.effect` is as the worker sent it.
              It has ANSWER_S seconds, and never longer than the command; what it raises is logged, and denied.
    Raises: EffectError - it cannot be called with one argument.
    """
    if approver is not None and not _takes_one(approver):
        raise EffectError(f"answer_with needs a function of one Question that returns an asking.Answer, got {approver!r:.80}")
    global _approver
    _approver = approver


def _takes_one(approver: object) -> bool:
    if not callable(approver):
        return False
    try:
        inspect.signature(approver).bind(None)
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say
        pass
    return True


def put(question: Question, cancelled: Callable[[float], bool]) -> tuple[Answer, str]:
    """Ask and wait for the answer. Answers it with, for NO, why in words."""
    approver = _approver
    if approver is None:
        return Answer.NO, "nobody can be asked: this host named no approver"
    if not _room.acquire(blocking=False):
        return Answer.NO, f"{_MAX_OPEN} questions of this host are open already"
    try:
        future = _threads().submit(approver, question)
    except RuntimeError as error:
        _room.release()
        _log.error("a question of worker %s could not be asked: %s", question.worker, error)
        return Answer.NO, "it could not be asked"
    future.add_done_callback(lambda _done: _room.release())
    while True:
        if not concurrent.futures.wait([future], max(0.0, min(question.deadline - time.monotonic(), _LOOK_S))).done:
            if time.monotonic() < question.deadline and not cancelled(0.0):
                continue
            future.cancel()
            return Answer.NO, "nobody answered in time"
        try:
            answer = future.result()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the host's own code may raise anything, SystemExit too: logged, and denied
            told = question.worker, traceback_text(error)
            _log.error("the approver failed; its question of worker %s counts as denied\n%s", *told)
            return Answer.NO, "it could not be asked"
        if not isinstance(answer, Answer):  # True, "yes": not guessed at
            _log.error("the approver answered %.80r, which is no Answer; that counts as denied", answer)
            return Answer.NO, f"the host's approver returned {_named(answer)}, not an asking.Answer"
        _log.info("worker %s under policy %s: %s: %s", question.worker, question.policy, answer.value, question.text)
        return answer, "the answer was no"


def _named(answer: object) -> str:
    """What the plugin may hear of what the host's own code returned: no text, which could hold anything."""
    return repr(answer) if answer is None or isinstance(answer, bool) else f"a value of type {type(answer).__name__}"


@functools.cache
def _threads() -> DaemonExecutor:
    return DaemonExecutor(_MAX_OPEN, "fxcell-ask")
