"""Line 4: a plugin that dies while it is loaded, every time; and a preloaded module that does."""

import time

import pytest

from fxcell import FX, FxcellError, PluginError, PluginNotUsable, Reason, WorkerCrash, run
from fxcell.host.plugins import load_plugin
from tests.escapes.conftest import add, compute


def plugin(arena, text):
    file = arena.folder / "loaded.py"
    file.write_text(text)
    return load_plugin(file).call()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os\nos.abort()\n", Reason.SIGNAL),
        ("import os\nos._exit(0)\n", Reason.EXITED),
        ("import os\nos.write(3, bytes(64))\nimport time\ntime.sleep(60)\n", Reason.PROTOCOL_VIOLATION),
        ("while True: pass\n", Reason.DEADLINE),
    ],
    ids=["abort", "exit", "frame", "loop"],
)
def test_death_at_import_is_the_crash_it_is_each_of_three_times(arena, text, reason):
    call = plugin(arena, text + "def main(): pass\n")
    for _ in range(3):
        crash = arena.attack(call, deadline_s=0.4 if reason is Reason.DEADLINE else 10)
        assert isinstance(crash, WorkerCrash), crash
        assert crash.reason is reason


@pytest.mark.parametrize(
    "text", ["raise SystemExit\n", "1 / 0\n", "def\n", "x = 1\n"], ids=["exit", "raise", "syntax", "no entry"]
)
def test_error_at_import_is_an_error_and_the_worker_goes_on(arena, text):
    worker = FX.StartWorkerProcess() | run
    for _ in range(3):
        try:
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=plugin(arena, text)))
        except PluginNotUsable:
            continue
        assert isinstance(outcome, PluginError), outcome
    assert FX.SendCommandToWorkerProcess(process=worker, command=add(1, 2)) | run == 3
    FX.StopWorkerProcess(process=worker) | run


def test_module_that_cannot_be_preloaded_is_a_failed_start_each_time(arena):
    policy = compute(name="preloads what is not there", preload=("no_such_module_at_all",))
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(FxcellError, match="no_such_module_at_all"):
            FX.StartWorkerProcess(policy=policy) | run
        assert time.monotonic() - started < 10
