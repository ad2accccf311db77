"""The worker's loop: greet, then take turns with the host. Runs after the lockdown.

    hello ──▶   ◀── vocabulary?, define*, run | batch   effect ──▶ ◀── effectResult | failure   result | failure ──▶   ◀── stop

What it runs is hostile, in the same process: nothing here is a border, the host checks all that comes.
"""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from fxcell.policies import calls, values, vocabulary
from fxcell.policies.errors import (
    DecodeError,
    EffectDenied,
    EffectFailed,
    EncodeError,
    InternalError,
    MessageTooLarge,
)  # fmt: skip
from fxcell.policies.policy import Policy
from fxcell.policies.running import carries_work
from fxcell.sandbox import batches, output, runtime, wire
from fxcell.sandbox.apply import Locked
from fxcell.sandbox.area import WorkerArea

PROTOCOL = 1
SETUP_FAILED = 125
"""Exit status of a worker that could not be locked down; its stderr says why."""

_MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 4000, 16000


def serve(locked: Locked, policy: Policy, *, spin: bool) -> None:
    """Serve commands until the host says stop or goes away."""
    channel = wire.Channel(locked.channel, max_value_bytes=policy.limits.message_bytes, spin=spin)
    channel.passes_on = True
    run = runtime.WorkerRunner(channel, output.replace_streams(channel))
    runtime.install(run)
    message = wire.Message.new_message()
    hello = message.init("hello")
    hello.protocol, hello.enforced = PROTOCOL, locked.report
    channel.send(message)
    definitions: dict[str, calls.Definition] = {}
    area: WorkerArea | None = None
    while True:
        try:
            message = channel.receive()
        except wire.ChannelClosed:
            return
        kind = message.which()
        if kind == "run":
            _answer(channel, run, message.id, run, message.run)
        elif kind == "batch" and area is not None:
            _answer(channel, run, message.id, functools.partial(batches.go_through, run=run, area=area), message.batch)
        elif kind == "define":
            define = message.define
            # Under the digest the host named; kept for the worker's life. Large code comes in several pieces.
            before = definitions[define.digest].code if define.digest in definitions else b""
            definitions[define.digest] = calls.Definition(define.digest, define.name, before + define.code)
            calls.remember(definitions[define.digest])
        elif kind == "area":
            (descriptor,) = channel.take_fds()
            area = WorkerArea(descriptor)
        elif kind == "vocabulary":
            vocabulary.adopt(message.vocabulary)
        elif kind == "stop":
            return
        else:
            raise InternalError(f"the host sent {kind} to a worker")


def _answer(
    channel: wire.Channel, run: runtime.WorkerRunner, number: int, act: Callable[[Any], Any], value: Any
) -> None:
    try:
        run.begin(number)
        try:
            result = act(channel.value_of(value, allow_calls=True))
        finally:
            run.end()
            run.flush_streams()
        packed = values.pack(result)
        _refuse_work(packed, result)
        channel.send_value("result", number, packed)
    except runtime.ChannelBroken:
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - whatever plugin code raises is an answer
        _send_failure(channel, number, error)


def _refuse_work(packed: values.Packed, result: Any) -> None:
    for definition in packed.definitions.values():
        raise EncodeError(
            f"the result holds a call of {definition.name} inside another value: return its result instead"
        )
    if carries_work(result):
        raise EncodeError("the result holds an effect inside another value: run it, and return its result instead")


def _send_failure(channel: wire.Channel, number: int, error: BaseException) -> None:
    message = wire.Message.new_message(id=number)
    failure = message.init("failure")
    failure.kind = _kind(error)
    failure.typeName = _text(type(error).__name__, 200)
    try:
        failure.message = _text(str(error), _MESSAGE_CHARACTERS)
        shown = traceback.format_exception(error, limit=-50)
        failure.traceback = _text("".join(shown), _TRACEBACK_CHARACTERS, keep_end=True)
    except BaseException:  # noqa: BLE001 - an exception whose str() raises, or memory is out
        failure.message = "(its text cannot be shown)"
    if isinstance(error, EffectDenied | EffectFailed | MessageTooLarge | EncodeError | DecodeError):
        failure.details = msgspec.msgpack.encode(_details(error))
    channel.send(message)


def _kind(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, EffectDenied):
        return "denied"
    return "failed" if isinstance(error, EffectFailed) else "plugin"


def _details(error: BaseException) -> dict[str, Any]:
    return {key: value for key, value in vars(error).items() if isinstance(value, str | int | float | None)}


def _text(value: str, limit: int, *, keep_end: bool = False) -> str:
    if len(value) > limit:
        value = "…" + value[-limit:] if keep_end else value[:limit] + "…"
    return value.encode("utf-8", "backslashreplace").decode()
