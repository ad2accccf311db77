"""What `value | run` means, the same on both sides of the border.

An effect is performed, a call is made, a list runs in order, anything else is itself; a result that is again an effect
or a call (or a list holding one) runs where it was produced. The runtimes differ only in how they perform an effect.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fxcell.policies.calls import Call
from fxcell.policies.effects import Effect
from fxcell.policies.errors import OutcomeError
from fxcell.policies.value_types import SCALARS


class Runner:
    """The right-hand side of `value | run`. A subclass says how one effect is performed."""

    __array_ufunc__ = None  # else `ndarray | run` would run each element by itself

    def perform(self, effect: Effect) -> Any:
        """Perform one effect and answer its result."""
        raise TypeError(f"{type(self).__name__} does not perform effects such as FX.{effect.effect_name}")

    def __call__(self, value: Any) -> Any:
        """Run a value and answer its result; raises the outcome errors of fxcell.policies.errors."""
        if isinstance(value, Effect):
            return self.perform(value)
        if isinstance(value, Call):
            result = value.perform()
            return self(result) if holds_work(result) else result
        if type(value) is list:
            return [self(item) for item in value]
        return value

    def __ror__(self, value: Any) -> Any:
        return self(value)

    def outcome(self, value: Any) -> Any:
        """As calling, but PluginError, EffectDenied, EffectFailed and WorkerCrash are returned, not raised."""
        try:
            return self(value)
        except OutcomeError as outcome:
            return outcome

    def __reduce__(self) -> tuple[Any, ...]:
        return (current, ())


_WORK = (Effect, Call)


def holds_work(value: Any) -> bool:
    """True for an effect, a call, or a list that holds one at any depth."""
    if isinstance(value, _WORK):
        return True
    return type(value) is list and any(holds_work(item) for item in value)


def carries_work(value: Any) -> bool:
    """True for an effect, a call, or a container that holds one anywhere: what does not pass from one worker to others.

    A function that gets one and answers it, bare or in a list, has it run where it is, under the policy that holds there.
    """
    if type(value) in SCALARS:
        return False
    if isinstance(value, _WORK):
        return True
    if isinstance(value, dict):
        return _any_carries(value.values()) or _any_carries(value)
    return isinstance(value, list | tuple | set | frozenset) and _any_carries(value)


def _any_carries(items: Collection[Any]) -> bool:
    return not SCALARS.issuperset(map(type, items)) and any(map(carries_work, items))


def current() -> Any:
    """The `run` of this process: the host's, or in a worker the worker's."""
    import fxcell

    return fxcell.run
