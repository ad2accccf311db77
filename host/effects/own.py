"""Effects of one's own: how a handler in a few lines becomes one that the broker can call.

    class Translate(Effect):                @handles(Translate)
        text: str                           def translate(effect, context):
        to: str = "en"                          return my_translator(effect.text, effect.to)

A handler takes the effect, or the effect and its Context, and is a function or an `async def`. Functions run in the
thread of the command that asks, so one that takes long holds up its own worker alone. Coroutines of all workers share
one loop (async_handlers.py).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from fxcell.host.effects import async_handlers
from fxcell.host.effects.context import Context, Handler
from fxcell.host.effects.filled import filling
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectError
from fxcell.policies.vocabulary import check_describable

Given = TypeVar("Given", bound=Callable[..., Any])


def as_handler(effect: Any, given: Any) -> Handler:
    """The function as the broker calls it: with effect and context, answering a result and no coroutine.

    Raises: EffectError - a worker cannot be told of the effect, or the function takes neither one nor two arguments.
    """
    if not (isinstance(effect, type) and issubclass(effect, Effect) and effect is not Effect):
        raise EffectError(f"a handler is for a class that extends Effect, got {effect!r:.80}")
    check_describable(effect)
    if not callable(given):
        raise EffectError(f"the handler of FX.{effect.effect_name} must be a function, got {type(given).__name__}")
    wants_context = _takes(given, 2)
    if not wants_context and not _takes(given, 1):
        raise EffectError(f"the handler of FX.{effect.effect_name} must take (effect) or (effect, context)")
    if inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(getattr(given, "__call__", None)):  # noqa: B004
        return filling(functools.partial(_awaited, given, wants_context))
    if wants_context:
        handler: Handler = given
        return filling(handler)
    return filling(lambda asked, _context: given(asked))


def _awaited(given: Callable[..., Any], wants_context: bool, effect: Effect, context: Context) -> Any:
    return async_handlers.perform(lambda: given(effect, context) if wants_context else given(effect), effect, context)


def _takes(given: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(given).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say
        return count == 2
    return True
