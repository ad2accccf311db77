"""OpenTelemetry with its real SDK, in a process of its own: providers are set once per process."""

import subprocess
import sys

import pytest

HOST = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, reader, provider = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
from fxcell import *

@zef_function
def plugin():
    import ctypes
    FX.Print(content="very-secret") | run
    ctypes.string_at(0)

worker = FX.StartWorkerProcess() | run
with trace.get_tracer("app").start_as_current_span("caller") as caller:
    assert isinstance(run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=plugin())), WorkerCrash)
effect, command, _ = spans.get_finished_spans()
assert (effect.name, command.name) == ("FX.Print", "fxcell.command")
assert effect.parent.span_id == command.context.span_id
assert command.parent.span_id == caller.get_span_context().span_id
assert command.attributes["error.type"] == "WorkerCrash" and command.attributes["fxcell.crash.reason"] == "signal"
assert effect.attributes["fxcell.outcome"] == "done"
assert "secret" not in effect.to_json() + command.to_json()
with trace.get_tracer("app").start_as_current_span("elsewhere") as elsewhere:
    worker = FX.StartWorkerProcess() | run
    run.submit(FX.SendCommandToWorkerProcess(process=worker, command=1)).result()
(parent,) = [s.parent for s in spans.get_finished_spans()[3:] if s.name == "fxcell.command"]
assert parent.span_id == elsewhere.get_span_context().span_id
found = {m.name for m in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics}
assert found == {"fxcell.effects", "fxcell.worker.crashes", "fxcell.command.duration"}, found
"""

NOBODY = """
import sys
from fxcell import *
from fxcell.host.broker import Broker
worker = FX.StartWorkerProcess() | run
FX.SendCommandToWorkerProcess(process=worker, command=1) | run
assert Broker.observer is None and not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def host(script, tmp_path):
    (tmp_path / "host.py").write_text(script)
    return subprocess.run([sys.executable, tmp_path / "host.py"], capture_output=True, text=True, timeout=60)


def test_command_effect_and_crash_are_spans_below_the_callers_and_hold_no_arguments(tmp_path):
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    done = host(HOST, tmp_path)
    assert done.returncode == 0, done.stderr[-800:]


def test_without_a_provider_nothing_listens_and_nothing_is_imported(tmp_path):
    done = host(NOBODY, tmp_path)
    assert done.returncode == 0, done.stderr[-800:]
