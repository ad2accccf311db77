"""CallPlugin when it goes wrong or takes its time: the caller learns the reason alone and lives, and no callee outlives it."""

import logging
import threading
import time

import pytest

from fxcell import FX, EffectFailed, Limits, PluginError, Pool, Reason, WorkerCrash, load_policy, run, zef_function
from fxcell.host import callees
from tests.host.calling import calls, double, failure, living, nest, send
from tests.host.calling import nobody_registered as nobody_registered  # noqa: PLC0414 - the fixture
from tests.leaks import assert_nothing_left

# --- what goes wrong


def test_crash_of_the_callee_is_its_reason_alone_and_the_caller_lives(caplog):
    @zef_function
    def die():
        import os

        os.abort()

    @zef_function
    def survive():
        try:
            FX.CallPlugin(plugin="die") | run
        except EffectFailed as failed:
            return failed.kind, failed.message

    callees.register("die", die, policy="compute")
    with caplog.at_level(logging.WARNING, "fxcell.calls"):
        assert send(survive(), calls("die")) == ("crashed", "the plugin 'die' crashed: signal")
    assert "SIGABRT" in caplog.text


def test_exception_of_the_callee_is_its_type_and_one_harmless_line():
    @zef_function
    def fail():
        raise LookupError("no\nsuch \x1b[31mthing" + "!" * 1000)

    callees.register("fail", fail, policy="compute")
    failed = failure(FX.CallPlugin(plugin="fail"), calls("fail"))
    assert failed.kind == "plugin_error"
    assert failed.message.startswith("the plugin 'fail' raised LookupError: no\\nsuch \\x1b[31mthing!!!")
    assert len(failed.message) < 400


def test_plugin_that_is_granted_but_not_registered_is_told():
    assert failure(FX.CallPlugin(plugin="nobody"), calls("nobody")).kind == "not_registered"


def test_arguments_that_do_not_fit_are_the_callees_error():
    callees.register("double", double, policy="compute")
    assert failure(FX.CallPlugin(plugin="double", arguments={"other": 1}), calls("double")).kind == "plugin_error"


def test_result_over_the_callers_message_limit_is_too_large_and_the_caller_lives():
    @zef_function
    def much():
        return bytes(100_000)

    callees.register("much", much, policy="compute")
    limits = {**load_policy("compute").limits.to_data(), "message_bytes": 10_000}
    granted = calls("much").replaced(limits=Limits(**limits))
    assert failure(FX.CallPlugin(plugin="much"), granted).kind == "too_large"


@zef_function
def echo(value):
    return value


@pytest.mark.parametrize(
    "wrapped",
    [lambda e: e, lambda e: [e], lambda e: {"x": e}, lambda e: ([{"x": {1: (e,)}}],)],
    ids=["bare", "list", "table", "deep"],
)
def test_effect_in_arguments_is_refused_before_a_callee_could_perform_it(wrapped):
    callees.register("echo", echo, policy=load_policy("compute"))
    failed = failure(FX.CallPlugin(plugin="echo", arguments={"value": wrapped(FX.RandomBytes(count=1))}), calls("echo"))
    assert (failed.kind, "hold an effect" in failed.message) == ("bad_request", True)
    assert send(FX.CallPlugin(plugin="echo", arguments={"value": [1, {"x": (2,)}]}), calls("echo")) == [1, {"x": (2,)}]


HIDDEN = {
    "table": lambda effect: {"run me": effect},
    "tuple": lambda effect: (effect,),
    "deep": lambda effect: [1, {"a": [effect]}],
}


@pytest.mark.parametrize("how", HIDDEN)
def test_effect_inside_a_result_is_refused_where_it_is_produced(how):
    hidden = HIDDEN[how]

    def bait(_):
        return hidden(FX.RandomBytes(count=1))

    worker = FX.StartWorkerProcess() | run
    called = FX.SendCommandToWorkerProcess(process=worker, command=zef_function(bait)(0))
    try:
        with pytest.raises(PluginError, match="holds an effect inside another value"):
            run(called)
        with Pool(1) as pool, pytest.raises(PluginError, match="holds an effect inside another value"):
            pool.map(bait, range(2))
        assert run(FX.SendCommandToWorkerProcess(process=worker, command=echo(7))) == 7
    finally:
        FX.StopWorkerProcess(process=worker) | run


# --- time


@zef_function
def wait(names=()):
    FX.Print(content="waiting") | run
    FX.Sleep(seconds=59.0) | run


def wait_until_printed(capsys, text, times=1, patience_s=30.0):
    end, seen = time.monotonic() + patience_s, ""
    while seen.count(text) < times:
        assert time.monotonic() < end, seen
        seen += capsys.readouterr().out
        threading.Event().wait(0.01)


def test_deadline_of_the_caller_ends_the_callee_too():
    callees.register("wait", wait, policy="compute")
    send(1, calls("wait"))  # templates stay
    send(1, "compute")
    with assert_nothing_left():
        begun = time.monotonic()
        with pytest.raises((EffectFailed, WorkerCrash)) as ended:
            send(FX.CallPlugin(plugin="wait"), calls("wait"), deadline_s=1.0)
        assert time.monotonic() - begun < 20
        outcome = ended.value
        assert getattr(outcome, "kind", "timeout") == "timeout"
        assert getattr(outcome, "reason", Reason.DEADLINE) is Reason.DEADLINE


def test_caller_that_is_stopped_takes_the_callees_below_it_along(capsys):
    callees.register("middle", nest, policy=calls("wait"))
    callees.register("wait", wait, policy="compute")
    for granted in (calls("middle"), calls("wait"), "compute"):
        send(1, granted)  # templates stay
    before = living()
    with assert_nothing_left():
        worker = FX.StartWorkerProcess(policy=calls("middle")) | run
        future = run.submit(FX.SendCommandToWorkerProcess(process=worker, command=nest(["middle", "wait"])))
        wait_until_printed(capsys, "waiting")
        assert len(living()) == len(before) + 3
        FX.StopWorkerProcess(process=worker) | run
        with pytest.raises(WorkerCrash):
            future.result(30)
        assert living() == before


def test_callers_that_wait_do_not_hold_up_others(capsys):
    callees.register("wait", wait, policy="compute")
    waiting = [FX.StartWorkerProcess(policy=calls("wait")) | run for _ in range(3)]
    futures = [run.submit(FX.SendCommandToWorkerProcess(process=w, command=FX.CallPlugin(plugin="wait"))) for w in waiting]
    wait_until_printed(capsys, "waiting", times=3)
    callees.register("double", double, policy="compute")
    assert send(FX.CallPlugin(plugin="double", arguments={"value": 4}), calls("double")) == 8
    for worker in waiting:
        FX.StopWorkerProcess(process=worker) | run
    for future in futures:
        assert isinstance(future.exception(30), WorkerCrash)
