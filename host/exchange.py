"""The exchange of one command with a worker: what goes out, and in which order what may come in.

    vocabulary (before the first) -> define* -> run | batch -> { output | effect -> broker -> effectResult }* -> result | failure

Whatever the worker sends that is not the next thing in this order is a protocol violation.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import capnp
import msgspec

from fxcell.host import ending, watching
from fxcell.host.broker import Broker
from fxcell.host.diagnose import HostCause
from fxcell.host.log_text import traceback_text
from fxcell.host.outputs import Outputs
from fxcell.policies import values, vocabulary
from fxcell.policies.calls import Definition
from fxcell.policies.crash import Reason
from fxcell.policies.effects import Effect
from fxcell.policies.errors import (
    EffectDenied,
    EffectFailed,
    EncodeError,
    InternalError,
    MessageTooLarge,
    OutOfDescriptors,
    PluginError,
    printable,
)
from fxcell.policies.policy import Policy
from fxcell.policies.running import carries_work
from fxcell.sandbox import wire
from fxcell.sandbox.area import HostArea, NoArea

_log = logging.getLogger("fxcell.sessions")
_CODE_PIECE_BYTES = wire.FRAME_BYTES_MAX // 2
_TOLD_CHARACTERS = 16_000
"""Of each text of a refusal that a worker is told: a handler may have put all into it that the worker sent."""
UNSENDABLE = "the host's handler answered what cannot be sent; the host's log says why"
_WORK = "a result is or holds an effect, which a worker performs itself"

_QUICK = frozenset({"Now", "Print", "Log", "RandomBytes"})
"""Effects that no plugin can make last: before others its CPU time is looked at, for theirs is its own to use."""

Performer = Callable[[Effect, float], Any]
"""Answers an effect by a deadline, time.monotonic() seconds. Raises EffectDenied or EffectFailed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a command ended its worker, as far as it was seen from the channel."""

    cause: HostCause | None
    mid_frame: bool = False
    memory_error: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """An outcome that its worker survives, to be raised once: the exception is taken out then."""

    exceptions: list[Exception]


@dataclass(frozen=True, slots=True)
class Answered:
    """What a batch came to: results of the calls before, and what the last call came to, which may be a Failure."""

    before: list[Any]
    last: Any


class Exchange:
    """The commands of one worker, one at a time.

    open_effect: the effect whose answer was not on its way yet, or None.
    """

    def __init__(self, policy: Policy, handles: ending.Handles, broker: Broker, outputs: Outputs) -> None:
        self.open_effect: str | None = None
        self._policy = policy
        self._handles = handles
        self._channel = handles.channel
        self._broker = broker
        self._outputs = outputs
        self._commands = 0
        self._known: set[str] = set()  # digests: a definition holds the function, and what that holds
        self._effects_seen = 0
        self._last_failure: EffectFailed | None = None
        # With the first command, not with the start: a worker that is kept ready serves many policies.
        self._vocabulary = vocabulary.described(policy)
        self.area: HostArea | None = None
        self._clock: watching.CpuWatch | None = None

    def cancelled(self, seconds: float) -> bool:
        """Wait up to so long for the end of the worker, or of its CPU time, while an effect of it is performed; True then."""
        end, clock = time.monotonic() + seconds, self._clock
        while True:
            now = time.monotonic()
            if clock is not None and now >= clock.next_look and clock.look() is not None:
                return True  # what serves the command will look again
            until = end if clock is None else min(end, clock.next_look)
            if self._handles.gone_within(max(0.0, until - now)):
                return True
            if time.monotonic() >= end:
                return False

    def answer(
        self, packed: values.Packed, deadline: float, seconds: float, perform: Performer, *, calls: int = 0
    ) -> Any:
        """The command's result, or how it failed, as a value: a Failure or a Verdict.

        perform: answers an effect that the worker asks for.
        calls:   how many calls `packed` holds when it is a batch; then a Failure or a result is of the last that was made, and
                 comes as Answered. 0 for a command.

        What is raised to the caller is raised elsewhere: no frame that held a message or a refused value goes with it.
        Raises: MessageTooLarge, EncodeError, and NoArea for a batch - before the worker heard of the command; whatever
                interrupts the caller, after which the worker cannot be used again.
        """
        self._commands += 1
        # Not to be guessed: nothing that an earlier command left behind can answer this one before it is sent.
        number = int.from_bytes(os.urandom(8), "little") >> 1
        self._broker.begin_command()
        self._outputs.begin_command()
        self._handles.begin_command()
        self._last_failure = None
        try:
            area = self._offered_area(deadline) if calls else None
            if self._vocabulary is not None:
                self._channel.send(wire.Message.new_message(vocabulary=self._vocabulary), deadline=deadline)
                self._vocabulary = None
            for definition in packed.definitions.values():
                self._define(definition, deadline)
            self._channel.send_value("batch" if calls else "run", number, packed, deadline)
            message = self._answered(number, deadline, perform)
            self._outputs.end_command()
            before = area.results(calls - 1, self._channel.decoded_bytes_max) if area is not None else []
            if carries_work(before):
                raise wire.WireError(_WORK)
            if message.which() == "result":
                result = self._channel.value_of(message.result, allow_calls=False)
                if carries_work(result):
                    # Workers run such results themselves, as `run` does. Here the host would, with its own authority, or the
                    # next worker that gets it as an argument.
                    raise wire.WireError(_WORK)
                if time.monotonic() >= deadline:  # what is slow to decode must not be a way around it
                    raise wire.DeadlinePassed
                return Answered(before, result) if calls else result
            failure = Failure([self._failure(message.failure)])
            return Answered(before, failure) if calls else failure
        except (wire.ChannelClosed, BrokenPipeError, ConnectionResetError) as closed:
            return Verdict(None, mid_frame=getattr(closed, "mid_frame", False))
        except (wire.WireError, capnp.KjException, UnicodeError) as error:
            # Fields are read when they are asked for: a bad pointer in one shows only then.
            return Verdict(HostCause(Reason.PROTOCOL_VIOLATION, f"{error!s:.300}"))
        except wire.DeadlinePassed:
            stopped = "; the worker is stopped (SIGSTOP)" if watching.is_stopped(self._handles.pid) else ""
            return Verdict(HostCause(Reason.DEADLINE, f"no answer within {seconds:g} s{stopped}"))
        except _Ended as ended:
            return ended.verdict

    def _offered_area(self, deadline: float) -> HostArea:
        """The area for the results of a batch, which the worker has, and which is empty. Raises: NoArea."""
        try:
            if self.area is None:
                self.area = HostArea()
            if not self.area.is_sent:
                message = wire.Message.new_message()
                message.area = None
                self._channel.send(message, [self.area.descriptor], deadline)
                self.area.is_sent = True
        except OSError as error:
            if error.errno not in wire.NO_DESCRIPTOR:
                raise
            raise NoArea(str(error)) from error
        self.area.clear()
        return self.area

    def _define(self, definition: Definition, deadline: float) -> None:
        if definition.digest in self._known:
            return
        if not definition.code:
            raise EncodeError(f"the code of {definition.name} is not in this process, so the call cannot be sent")
        for start in range(0, len(definition.code), _CODE_PIECE_BYTES):
            message = wire.Message.new_message()
            define = message.init("define")
            define.digest, define.name = definition.digest, definition.name
            define.code = definition.code[start : start + _CODE_PIECE_BYTES]
            self._channel.send(message, deadline=deadline)
        self._known.add(definition.digest)

    def _answered(self, number: int, deadline: float, perform: Performer) -> Any:
        try:
            return self._serve_until_answer(number, deadline, perform)
        except (MessageTooLarge, EncodeError) as error:  # which would mean that the worker never heard of the command
            raise InternalError(f"a message in the middle of a command could not be sent: {error}") from error
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise OutOfDescriptors(*resource.getrlimit(resource.RLIMIT_NOFILE)) from error

    def _serve_until_answer(self, number: int, deadline: float, perform: Performer) -> Any:
        clock = self._clock = watching.CpuWatch(self._handles.meter, self._policy.limits)
        while True:
            # Asked before each message: a flood of them must not put the deadline off.
            now = time.monotonic()
            if now >= deadline:
                raise wire.DeadlinePassed
            if now >= clock.next_look and (used := clock.look()) is not None:
                raise _Ended(Verdict(HostCause(Reason.CPU_LIMIT, used)))
            try:
                message = self._channel.receive(min(deadline, clock.next_look))
            except wire.DeadlinePassed:
                continue
            kind = message.which()
            if kind in ("result", "failure"):
                if message.id != number:
                    raise wire.WireError(f"an answer came that is not for command {self._commands}, which was running")
                return message
            if kind == "effect":
                self._effect(message, deadline, perform)
            elif kind == "output":
                if not message.output.data:  # it would count against no limit, and be work all the same
                    raise wire.WireError("the worker sent an output message without output")
                if not self._outputs.add(message.output.stream, message.output.data):
                    what = f"the worker wrote more than {self._policy.limits.output_bytes} bytes of output"
                    raise _Ended(Verdict(HostCause(Reason.OUTPUT_LIMIT, what)))
            else:
                raise wire.WireError(f"the worker sent {kind}, which only hosts send")

    def _effect(self, message: Any, deadline: float, perform: Performer) -> None:
        self._effects_seen += 1
        number = message.id
        if number != self._effects_seen:
            raise wire.WireError(f"effect {number} came where effect {self._effects_seen} was next")
        effect = self._channel.value_of(message.effect, allow_calls=False)
        if not isinstance(effect, Effect):
            raise wire.WireError(f"an effect message holds a {type(effect).__name__}")
        # Until its answer is on the way: a worker that dies before may ask again.
        self.open_effect = effect.effect_name
        if self._clock is not None and effect.effect_name not in _QUICK:
            self._clock.begin()
        try:
            packed = values.pack(perform(effect, deadline))
            self._channel.send_value("effectResult", number, packed, deadline)
        except (EffectDenied, EffectFailed) as refusal:
            self._refuse_effect(number, refusal, deadline)
        except MessageTooLarge as error:
            self._refuse_effect(number, EffectFailed(effect.effect_name, "too_large", str(error)), deadline)
        except EncodeError as error:
            what = effect.effect_name, self._broker.worker, traceback_text(error)
            _log.error("the answer to FX.%s of worker %s cannot be sent\n%s", *what)
            self._refuse_effect(number, EffectFailed(effect.effect_name, "internal", UNSENDABLE), deadline)
        self.open_effect = None

    def _refuse_effect(self, number: int, refusal: EffectDenied | EffectFailed, deadline: float) -> None:
        message = wire.Message.new_message(id=number)
        failure = message.init("failure")
        failure.kind = "denied" if isinstance(refusal, EffectDenied) else "failed"
        if isinstance(refusal, EffectFailed):
            self._last_failure = refusal
        # It is kept, and the frames of its traceback hold the effect, of whatever size.
        refusal.__traceback__ = refusal.__cause__ = refusal.__context__ = None
        details = {key: told(value) for key, value in vars(refusal).items() if isinstance(value, str | None)}
        failure.details = msgspec.msgpack.encode(details)
        self._channel.send(message, deadline=deadline)

    def _failure(self, failure: Any) -> Exception:
        """The outcome that a worker reports, as the exception that the caller gets."""
        kind, type_name = str(failure.kind), str(failure.typeName)
        if kind == "memory":
            raise _Ended(Verdict(None, memory_error=True))
        # What was denied or failed is told from our own record: the worker could say anything.
        if kind == "denied" and self._broker.last_denial is not None:
            return self._broker.last_denial
        if kind == "failed" and self._last_failure is not None:
            return self._last_failure
        parts = (type_name[:200], str(failure.message)[:4100], str(failure.traceback)[:16100])
        return PluginError(*map(printable, parts))


def told(text: str | None) -> str | None:
    """As much of a text as a message has room for, without half characters, which do not travel."""
    return None if text is None else text[:_TOLD_CHARACTERS].encode("utf-8", "backslashreplace").decode()


class _Ended(Exception):
    """The host decided to end the worker: not an error of anybody's code."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__()
        self.verdict = verdict
