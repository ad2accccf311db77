"""From what the broker and the sessions do to the records of the audit log.

One record for each decision: `granted` before an effect is performed, and then `done`, `failed` or `cancelled`; `denied`
for one that is not performed; `refused_more`, once at a command's end, for those after the first beyond limits.effects,
which are counted there and have no record of their own: what one command writes is bounded by its budget.

Of a dry run `granted` holds "simulated": true, and `simulated` stands in place of `done`.
`worker` and `number` join them. What a worker chose is redacted and one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fxcell.host.audit.redaction import redact, summary
from fxcell.host.audit.writer import Writer
from fxcell.host.broker import Broker, EffectRecord
from fxcell.host.observing import Observer
from fxcell.policies.builtin import HTTPRequest
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied


class AuditObserver(Observer):
    """Puts one record into the writer's queue for each thing it is told; waits only for `granted`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def worker_started(self, broker: Broker) -> None:
        self._writer.put({"event": "worker_started", **_who(broker)})

    def worker_ended(self, broker: Broker, why: str) -> None:
        self._writer.put({"event": "worker_ended", **_who(broker), "why": redact(why)})

    def worker_crashed(self, broker: Broker, crash: WorkerCrash) -> None:
        told = {"reason": crash.reason.value, "why": redact(str(crash)), "open_effect": crash.evidence.open_effect}
        self._writer.put({"event": "worker_crashed", **_who(broker), **told})

    def command_ended(self, broker: Broker, outcome: BaseException | None) -> None:  # noqa: ARG002 - as Observer
        if broker.over_budget > 1:
            told = {"event": "refused_more", **_who(broker), "count": broker.over_budget - 1}
            self._writer.put({**told, "rule": f"limits.effects = {broker.policy.limits.effects}"})

    def effect_granted(self, broker: Broker, effect: Effect, number: int) -> None:
        record = {"event": "effect", "decision": "granted", **_who(broker), **_what(effect, number)}
        record["rule"] = f"effects.{effect.effect_name}"
        if broker.simulated:
            record["simulated"] = True
        problem = self._writer.put(record, ask=True)
        if problem is not None:
            rule = f"the audit log cannot keep a record of it ({problem}), and nothing is done without one"
            raise EffectDenied(effect.effect_name, None, rule, broker.policy.name, "")

    def effect_ended(self, broker: Broker, effect: Effect, record: EffectRecord, reason: str, result: Any) -> None:
        if record.outcome == "denied" and broker.over_budget > 1:
            return  # counted: command_ended tells how many
        decision = "simulated" if broker.simulated and record.outcome == "done" else record.outcome
        told = {"event": "effect", "decision": decision, **_who(broker)}
        if record.outcome == "denied":
            told |= {**_what(effect, record.number), "rule": redact(reason)}
        else:
            told |= {"effect": effect.effect_name, "number": record.number}
            if reason:
                told["why"] = redact(reason)
            if type(result) is dict and isinstance(effect, HTTPRequest) and result.get("url") != effect.url:
                told["answered_by"] = _place(str(result.get("url")))  # redirects led there
        told |= {"seconds": round(record.seconds, 6), "bytes_in": _bytes(_fields(effect)), "bytes_out": _bytes(result)}
        self._writer.put(told)


def _who(broker: Broker) -> dict[str, Any]:
    who = {"worker": broker.worker, "policy": redact(broker.policy.name), "policy_digest": broker.policy.digest[:12]}
    if broker.command:
        who |= {"command": broker.command, "plugin": broker.plugin}
    return who


def _what(effect: Effect, number: int) -> dict[str, Any]:
    return {"effect": effect.effect_name, "number": number, "arguments": summary(_fields(effect))}


def _place(url: str) -> str:
    """A URL without what may carry more than where it is: user, query, fragment."""
    return redact(re.split(r"[?#]", url, maxsplit=1)[0])


def _fields(effect: Effect) -> dict[str, Any]:
    return {name: getattr(effect, name) for name in effect.effect_fields}


def _bytes(value: Any) -> int:
    """Bytes and characters in a value and one level below it."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(item) for item in value.values() if isinstance(item, str | bytes))
    return 0
