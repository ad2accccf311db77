"""Fields of effects of one's own that the host fills with secrets: `secrets = { api_key = "env:NAME" }` in the rule.

    worker's effect, placeholder in the field -> judged, recorded -> filled -> handler -> answer or error, cleaned -> broker

The filled effect lives only while its handler runs: records, audit lines, questions and logs are of the one that came.
"""

from __future__ import annotations

import traceback
from typing import Any

from fxcell.host import secrets
from fxcell.host.effects.context import Context, Handler
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EffectFailed
from fxcell.policies.plain_rule import PlainRule


def filling(handler: Handler) -> Handler:
    """The handler, given the effect with the fields filled that the worker's policy names."""

    def perform(effect: Effect, context: Context) -> Any:
        rule = None if context.policy is None else context.policy.effects.get(effect.effect_name)
        if not isinstance(rule, PlainRule) or not rule.secrets:
            return handler(effect, context)
        return _perform(handler, effect, context, rule)

    return perform


def _perform(handler: Handler, effect: Effect, context: Context, rule: PlainRule) -> Any:
    name = effect.effect_name
    injected = secrets.resolve(name, rule.secrets, "field")
    given = {field: getattr(effect, field) for field in effect.effect_fields}
    try:
        return injected.clean(handler(type(effect)(**{**given, **injected.values}), context))
    except EffectFailed as failed:
        raise EffectFailed(failed.effect, injected.clean(failed.kind), injected.clean(failed.message)) from None
    except EffectDenied as denied:
        texts = (injected.clean(denied.rule), denied.policy, injected.clean(denied.suggestion))
        raise EffectDenied(denied.effect, denied.field, *texts) from None
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever it is, its text goes to the log, and must not take the secret there
        raise RuntimeError(injected.clean(traceback.format_exc())) from None
