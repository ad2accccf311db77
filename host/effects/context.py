"""What a handler may know and use, and how it stays within its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fxcell.policies.call_rule import MAX_DEPTH
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectFailed
from fxcell.policies.policy import Policy

if TYPE_CHECKING:
    from fxcell.host.gates import Bucket

_WAIT_STEP_S = 3600.0  # lock waits refuse seconds beyond about 292 years; an hour is never noticed


class Kept(Protocol):
    """Something a handler keeps open for a worker."""

    def close(self) -> None:
        """Let go of it; called once, when no effect of the worker is running."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """For whom a worker was started, the same for all its effects; and what handlers keep for it.

    plugin: checked name of its plugin, "" without one.
    chain:  names of the plugins whose calls led here, outermost first, its own last.
    levels: how many levels of calls may still lie below it.
    kept:   by a key of the handler's choice; closed when the worker ends.
    rates:  effect -> bucket, of a plugin that is called: shared by the workers of all its calls. None: the worker's own.
    """

    plugin: str = ""
    chain: tuple[str, ...] = ()
    levels: int = MAX_DEPTH
    kept: dict[str, Kept] = field(default_factory=dict)
    rates: Mapping[str, Bucket] | None = None

    def close(self) -> None:
        """Close all that was kept."""
        while self.kept:
            self.kept.popitem()[1].close()


def _free(_effect: str, _count: int) -> None:
    """What the host shows for itself counts against nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, with whose authority, and until when.

    worker:    label for records and logs, such as "w3".
    policy:    None when the host performs the effect for itself, with the host's own authority.
    deadline:  time.monotonic() seconds, finite.
    cancelled: waits up to that many seconds; True when the worker died or the command is over.
    output:    takes each line of FX.Print, without its newline.
    spend:     told of (effect, bytes) before they are shown or logged. Raises EffectDenied where limits.output has no room.
    caller:    the plugin behind the worker; None when the host performs the effect for itself.
    """

    worker: str
    policy: Policy | None
    deadline: float
    cancelled: Callable[[float], bool]
    output: Callable[[str], None]
    caller: Caller | None = None
    spend: Callable[[str, int], None] = _free


Handler = Callable[[Any, Context], Any]
"""Performs one effect of its class and answers the result; raises EffectDenied or EffectFailed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The end of one effect's time: the earlier of its own timeout and the command's deadline.

    end:    time.monotonic() seconds.
    worker: who waits; "" for the host itself.
    """

    effect: str
    end: float
    cancelled: Callable[[float], bool]
    worker: str = ""

    def remaining(self) -> float:
        """Seconds left, more than 0. Raises EffectFailed(timeout)."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise EffectFailed(self.effect, "timeout", "its time was over before it was done")
        return left

    def check(self) -> None:
        """Raise EffectFailed(timeout or cancelled) when nobody waits for the result any more."""
        self.remaining()
        if self.cancelled(0.0):
            raise cancelled(self.effect)

    def wait(self, seconds: float) -> None:
        """Wait that long. Raises EffectFailed(timeout) at the end of the time, EffectFailed(cancelled) at once."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.cancelled(min(left, self.remaining(), _WAIT_STEP_S)):
                raise cancelled(self.effect)


def pace_of(effect: Effect, context: Context, timeout_s: float | None = None) -> Pace:
    """The time an effect has, counted from now."""
    end = context.deadline if timeout_s is None else min(context.deadline, time.monotonic() + timeout_s)
    return Pace(effect.effect_name, end, context.cancelled, "" if context.policy is None else context.worker)


def cancelled(effect: str) -> EffectFailed:
    """The failure of an effect that nobody waits for any more."""
    return EffectFailed(effect, "cancelled", "the worker is gone or its command is over")
