"""OpenTelemetry: a span for each command and each effect, and counts of effects and crashes, where the host uses it.

    application sets a tracer or meter provider -> first worker started after that -> look() -> observer

Nothing is imported that the application has not imported itself; without it the cost is one look into sys.modules per
started worker. Spans hold names, outcomes and digests, never arguments, results or what a plugin wrote. The command's
span is a child of the caller's current span, and is itself current while effects are performed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from fxcell.host import observing
from fxcell.policies.crash import WorkerCrash

if TYPE_CHECKING:
    from fxcell.host.broker import Broker, EffectRecord
    from fxcell.policies.effects import Effect

_found = False
_table = threading.Lock()


def look() -> None:
    """Begin to report when the application has set a provider by now; asked whenever a worker starts."""
    global _found
    trace = sys.modules.get("opentelemetry.trace")
    if _found or trace is None:
        return
    from importlib import import_module

    metrics = import_module("opentelemetry.metrics")
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    if all(type(provider).__name__.lstrip("_").startswith("Proxy") for provider in providers):
        return  # the API without anybody who collects
    with _table:
        if not _found:
            _found = True
            observing.add(TelemetryObserver(trace, metrics, import_module("opentelemetry.context")))


class TelemetryObserver(observing.Observer):
    """Makes spans and counts in the thread that runs the command."""

    def __init__(self, trace: Any, metrics: Any, context: Any) -> None:
        self._trace, self._context = trace, context
        self._tracer = trace.get_tracer("fxcell")
        meter = metrics.get_meter("fxcell")
        self._effects = meter.create_counter("fxcell.effects", "{effect}", "effects by name and outcome")
        self._crashes = meter.create_counter("fxcell.worker.crashes", "{crash}", "crashes by reason")
        self._seconds = meter.create_histogram("fxcell.command.duration", "s", "commands, from sent to answered")
        self._running: dict[str, tuple[Any, Any, float]] = {}  # a worker runs one command at a time

    def command_started(self, broker: Broker) -> None:
        told = {"fxcell.worker": broker.worker, "fxcell.policy": broker.policy.name, "fxcell.command": broker.command}
        span = self._tracer.start_span("fxcell.command", attributes=told)
        token = self._context.attach(self._trace.set_span_in_context(span))
        self._running[broker.worker] = span, token, time.perf_counter()

    def command_ended(self, broker: Broker, outcome: BaseException | None) -> None:
        if broker.worker not in self._running:  # it began before anybody looked
            return
        span, token, started = self._running.pop(broker.worker)
        told = {} if outcome is None else {"error.type": type(outcome).__name__}
        if outcome is not None:
            span.set_attributes(told)
            span.set_status(self._trace.StatusCode.ERROR)
        if isinstance(outcome, WorkerCrash):
            span.set_attribute("fxcell.crash.reason", outcome.reason.value)
        self._context.detach(token)
        span.end()
        self._seconds.record(time.perf_counter() - started, told)

    def worker_crashed(self, broker: Broker, crash: WorkerCrash) -> None:
        self._crashes.add(1, {"fxcell.crash.reason": crash.reason.value, "fxcell.policy": broker.policy.name})

    def effect_ended(self, broker: Broker, effect: Effect, record: EffectRecord, reason: str, result: Any) -> None:
        del broker, reason, result  # they can hold what a plugin wrote
        told = {"fxcell.effect": effect.effect_name, "fxcell.outcome": record.outcome}
        self._effects.add(1, told)
        start_ns = int(record.started_unix_s * 1e9)
        span = self._tracer.start_span(f"FX.{effect.effect_name}", attributes=told, start_time=start_ns)
        if record.outcome != "done":
            span.set_attribute("error.type", record.outcome)
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(start_ns + int(record.seconds * 1e9))


def _forget_after_fork() -> None:
    global _found, _table
    _found, _table = False, threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
