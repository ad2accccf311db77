"""Answers that stand for effects which are not performed: for `fxcell run --dry-run`, and while a policy is learnt.

Print, Log, Sleep and everything that changes or deletes something: None, at once. Now: the host's clock. RandomBytes: as
many bytes from the host's random source. HTTPRequest: status 200 without headers and body, from the url that was asked.
ReadFile: no bytes. ListDirectory: []. KeyValueList: one page, the last, without keys. KeyValueDelete: False.
GetEnvironment, KeyValueGet, CallPlugin, and every effect that this table does not name: None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fxcell.host.effects import basic
from fxcell.host.effects.context import Context
from fxcell.policies.effects import Effect


def _response(effect: Any, _context: Context) -> dict[str, Any]:
    return {"status": 200, "headers": {}, "body": b"", "url": effect.url}


_ANSWERS: Mapping[str, Callable[[Any, Context], Any]] = {
    "Now": basic.perform_now,
    "RandomBytes": basic.perform_random_bytes,
    "HTTPRequest": _response,
    "ReadFile": lambda _effect, _context: b"",
    "ListDirectory": lambda _effect, _context: [],
    "KeyValueList": lambda _effect, _context: {"keys": [], "next": None},
    "KeyValueDelete": lambda _effect, _context: False,
}


def simulated(effect: Effect, context: Context) -> Any:
    """The answer that stands for the effect. Raises EffectFailed where the arguments alone would make it fail."""
    answer = _ANSWERS.get(effect.effect_name)
    return None if answer is None else answer(effect, context)
