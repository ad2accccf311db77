"""How the host performs each effect: one handler per effect class, found by the class's name.

    HANDLERS["Print"](effect, context) -> result

A handler is trusted code; its arguments are not. It may assume that the effect is well typed and that the policy
granted it as it stands; it must keep to context.deadline, notice context.cancelled, hold caps on whatever it reads, and
raise nothing but EffectDenied and EffectFailed, whose texts go to the plugin. `handles` adds one for an effect of your own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fxcell.host.effects import basic
from fxcell.host.effects.context import Context, Handler, Pace, pace_of
from fxcell.policies import builtin
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectError

__all__ = ["HANDLERS", "Context", "Handler", "Pace", "handles", "pace_of", "register"]

Given = TypeVar("Given", bound=Callable[..., Any])


def _http_request(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import http  # httpx takes longer to import than all of fxcell

    return http.perform_http_request(effect, context)


def _read_file(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import files

    return files.perform_read_file(effect, context)


def _write_file(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import writing

    return writing.perform_write_file(effect, context)


def _delete_file(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import writing

    return writing.perform_delete_file(effect, context)


def _list_directory(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import listing

    return listing.perform_list_directory(effect, context)


def _get_environment(effect: Any, context: Context) -> Any:
    from fxcell.host.effects import environment

    return environment.perform_get_environment(effect, context)


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
    "WriteFile": _write_file,
    "DeleteFile": _delete_file,
    "ListDirectory": _list_directory,
    "GetEnvironment": _get_environment,
    "KeyValueGet": _state("perform_get"),
    "KeyValueSet": _state("perform_set"),
    "KeyValueDelete": _state("perform_delete"),
    "KeyValueList": _state("perform_list"),
    "CallPlugin": _call_plugin,
}

_OWN_WORK = (
    builtin.StartWorkerProcess, builtin.SendCommandToWorkerProcess, builtin.StopWorkerProcess,
    builtin.ListWorkerProcesses,
)  # fmt: skip
"""What the host's `run` does itself."""


def register(effect: type[Effect], handler: Callable[..., Any]) -> None:
    """Say how an effect of one's own is performed: by a function of (effect) or (effect, context), or an `async def`.

    From then on policies can grant it, and workers whose policy does are told its name, fields, types and defaults.
    Raises: EffectError - its name has a handler already, a field has a type that does not travel, or the handler
            cannot be called so.
    """
    if effect in _OWN_WORK or getattr(effect, "effect_name", None) in HANDLERS:
        raise EffectError(f"FX.{effect.effect_name} has a handler already")
    from fxcell.host.effects.own import as_handler

    HANDLERS[effect.effect_name] = as_handler(effect, handler)


def handles(effect: type[Effect]) -> Callable[[Given], Given]:
    """`@handles(Translate)` above a function: `register`, and the function stays what it is."""

    def decorate(handler: Given) -> Given:
        register(effect, handler)
        return handler

    return decorate
