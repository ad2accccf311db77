"""How the host performs each effect: one handler per effect class, found by the class's name.

    HANDLERS["Print"](effect, context) -> result

A handler is trusted code; its arguments are not. It may assume that the effect is well typed and that the policy
granted it as it stands; it must keep to context.deadline, notice context.cancelled, hold caps on whatever it reads, and
raise nothing but EffectDenied and EffectFailed, whose texts go to the plugin.
"""

from __future__ import annotations

from typing import Any

from fxcell.host.effects import basic
from fxcell.host.effects.context import Context, Handler, Pace, pace_of
from fxcell.policies.effects import Effect

__all__ = ["HANDLERS", "Context", "Handler", "Pace", "pace_of", "register"]


def _http_request(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import http  # httpx takes longer to import than all of fxcell

    return http.perform_http_request(effect, context)


def _read_file(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import files

    return files.perform_read_file(effect, context)


def _state(name: str) -> Handler:
    def perform(effect: Any, context: Context) -> Any:
        from fxcell.host.effects import state  # few hosts need SQLite

        return getattr(state, name)(effect, context)

    return perform


def _call_plugin(effect: Any, context: Context) -> Any:
    from fxcell.host import calling  # it starts workers, whose sessions need this module

    return calling.perform_call_plugin(effect, context)


HANDLERS: dict[str, Handler] = {
    "Print": basic.perform_print,
    "Log": basic.perform_log,
    "Now": basic.perform_now,
    "Sleep": basic.perform_sleep,
    "RandomBytes": basic.perform_random_bytes,
    "HTTPRequest": _http_request,
    "ReadFile": _read_file,
    "KeyValueGet": _state("perform_get"),
    "KeyValueSet": _state("perform_set"),
    "KeyValueDelete": _state("perform_delete"),
    "KeyValueList": _state("perform_list"),
    "CallPlugin": _call_plugin,
}


def register(effect: type[Effect], handler: Handler) -> None:
    """Say how an effect of one's own is performed. Raises ValueError when its name has a handler already."""
    if effect.effect_name in HANDLERS:
        raise ValueError(f"FX.{effect.effect_name} has a handler already")
    HANDLERS[effect.effect_name] = handler
