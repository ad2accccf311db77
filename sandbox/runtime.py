"""`run` inside a worker: an effect is sent to the host and its answer awaited; calls run here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec

import fxcell
from fxcell.policies import values
from fxcell.policies.calls import Call
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EffectFailed, InternalError
from fxcell.policies.running import Runner
from fxcell.sandbox import code, wire
from fxcell.sandbox.output import HostStream


class ChannelBroken(BaseException):
    """The host is gone or broke the protocol: this process has nobody to work for any more."""


class WorkerRunner(Runner):
    """Sends effects over the channel, one at a time: threads of a plugin wait for each other."""

    def __init__(self, channel: wire.Channel, streams: Sequence[HostStream] = ()) -> None:
        self.channel = channel
        self.streams = streams
        self.command = 0
        self._effects_sent = 0
        self._turn = threading.Lock()

    def __call__(self, value: Any) -> Any:
        """As Runner; the code of a call is loaded at its first use."""
        if isinstance(value, Call) and value.definition.function is None:
            value.definition.function = code.load(value.definition)
        return super().__call__(value)

    def perform(self, effect: Effect) -> Any:
        """Ask the host. Raises EffectDenied or EffectFailed as the host answers."""
        packed = values.pack(effect)
        self.flush_streams()
        with self._turn:
            if not self.command:
                raise RuntimeError(f"FX.{effect.effect_name} was run by a thread after its command had ended")
            number = self._effects_sent + 1
            try:
                self.channel.send_value("effect", number, packed)
                self._effects_sent = number  # not for one that was too large: the host counts what it gets
                answer = self.channel.receive()
                kind = answer.which()
                if answer.id != number or kind not in ("effectResult", "failure"):
                    raise InternalError(f"the host answered effect {number} with {kind} {answer.id}")
                if kind == "effectResult":
                    return self.channel.value_of(answer.effectResult, allow_calls=False)
            except (wire.WireError, OSError) as error:
                raise ChannelBroken from error
        raise _failure(answer.failure)

    def flush_streams(self) -> None:
        """Send text that print() has not sent yet, so that it comes before what happens next."""
        for stream in self.streams:
            stream.flush()

    def begin(self, number: int) -> None:
        """A command starts: effects may be asked for."""
        self.command = number

    def end(self) -> None:
        """The command is over; waits for an effect that a thread of the plugin is still asking for."""
        with self._turn:
            self.command = 0

    def submit(self, _value: Any) -> Any:
        """Not offered inside a worker."""
        raise TypeError(
            "run.submit and run.aio belong to the host; inside a worker use threads if the policy allows them"
        )

    aio = submit


def _failure(failure: Any) -> Exception:
    details = msgspec.msgpack.decode(failure.details, type=dict[str, Any])
    if failure.kind == "denied":
        return EffectDenied(
            details["effect"], details["field"], details["rule"], details["policy"], details["suggestion"]
        )
    return EffectFailed(details["effect"], details["kind"], details["message"])


def install(run: WorkerRunner) -> None:
    """Make this runner what `fxcell.run` means in this process, and leave out what only hosts can do."""
    fxcell.run = run  # type: ignore[assignment]
    fxcell.handles = _no_handlers
    fxcell.Pool = fxcell.PoolExecutor = _no_pool  # type: ignore[assignment, misc]


def _no_handlers(effect: Any) -> Any:
    raise TypeError(f"handlers of effects belong to the host; a worker asks: FX.{effect.effect_name}(…) | run")


def _no_pool(*_args: Any, **_kwargs: Any) -> Any:
    raise TypeError("pools belong to the host, which starts workers; inside a worker use threads if the policy allows them")
