"""CallPlugin: one plugin runs another under the other's policy; chains end, crashes stay where they are, nothing is left."""

import logging
import os
import threading
import time

import pytest

from fxcell import *
from fxcell.host import callees
from tests.leaks import assert_nothing_left


@pytest.fixture(autouse=True)
def nobody_registered():
    yield
    for name in callees.registered():
        callees.unregister(name)


def policy(name="p", base="compute", **effects):
    granted = load_policy(base)
    return granted.replaced(name=name, effects={**granted.effects, **effects})


def calls(*plugins, **rule):
    return policy(CallPlugin={"plugins": list(plugins), **rule})


def send(command, granted, plugin=None, **options):
    worker = FX.StartWorkerProcess(policy=granted, plugin=plugin) | run
    try:
        return FX.SendCommandToWorkerProcess(process=worker, command=command, **options) | run
    finally:
        FX.StopWorkerProcess(process=worker) | run


def failure(command, granted, plugin=None, **options):
    with pytest.raises(EffectFailed) as failed:
        send(command, granted, plugin, **options)
    assert "/" not in failed.value.message, "a path of the host"
    return failed.value


@zef_function
def double(value):
    return value * 2


@zef_function
def ask(plugin, arguments):
    return FX.CallPlugin(plugin=plugin, arguments=arguments) | run


@zef_function
def nest(names):
    """Call the plugins behind each other, and answer how many there were."""
    return 1 + (FX.CallPlugin(plugin=names[0], arguments={"names": names[1:]}) | run) if names else 1


# --- what it does


def test_result_of_the_other_plugin_is_the_effects_result():
    callees.register("double", double, policy="compute")
    assert send(ask("double", {"value": 21}), calls("double")) == 42
    assert send(FX.CallPlugin(plugin="double", arguments={"value": [1, (2,)]}), calls("double")) == [1, (2,), 1, (2,)]


def test_plugin_from_a_file_has_the_functions_that_were_registered(tmp_path):
    file = tmp_path / "shapes.py"
    file.write_text(
        "def area(a, b):\n    return a * b\n\ndef edge(a, b):\n    return 2 * (a + b)\n\ndef main():\n    return 'secret'\n"
    )
    callees.register("shapes", file, policy="compute", functions=("area", "edge"))
    file.unlink()  # it was read when it was registered
    granted = calls("shapes")
    arguments = {"a": 2, "b": 3}
    assert send(FX.CallPlugin(plugin="shapes", arguments=arguments), granted) == 6
    assert send(FX.CallPlugin(plugin="shapes", function="edge", arguments=arguments), granted) == 10
    refused = failure(FX.CallPlugin(plugin="shapes", function="main"), granted)
    assert (refused.kind, refused.message) == ("bad_request", "'main' is not a function of 'shapes'. Known: area, edge")


def test_plugin_folder_gets_what_it_requests_and_no_more(tmp_path):
    (tmp_path / "plugin.toml").write_text('name = "quiet"\nversion = "1"\nentry = "quiet:main"\neffects = ["Now"]\n')
    (tmp_path / "quiet.py").write_text("from fxcell import *\n\ndef main():\n    return FX.RandomBytes(count=1) | run\n")
    callees.register("quiet", tmp_path, policy="compute")
    assert failure(FX.CallPlugin(plugin="quiet"), calls("quiet")).kind == "denied"


def test_host_calls_a_plugin_for_itself():
    callees.register("double", double, policy="compute")
    assert FX.CallPlugin(plugin="double", arguments={"value": 2}) | run == 4


def test_each_call_has_a_new_process():
    @zef_function
    def count():
        import builtins

        builtins.seen = getattr(builtins, "seen", 0) + 1
        return builtins.seen

    callees.register("count", count, policy="compute")
    assert send([FX.CallPlugin(plugin="count")] * 3, calls("count")) == [1, 1, 1]


@zef_function
def says_the_time():
    return FX.Now() | run


@zef_function
def ask_often(plugin, times):
    """How each of several calls ended."""
    said = []
    for _ in range(times):
        try:
            said.append("done" if FX.CallPlugin(plugin=plugin) | run else "")
        except EffectFailed as failed:
            said.append(failed.kind)
    return said


def test_rate_of_a_called_plugin_holds_over_its_calls_whoever_makes_them():
    rated = policy(name="rated", Now={"rate": "2/h"})
    for name in ("clock", "another"):
        callees.register(name, says_the_time, policy=rated)
    granted = calls("clock", "another")
    assert send(ask_often("clock", 3), granted) == ["done", "done", "denied"]
    assert send(ask_often("clock", 1), granted) == ["denied"]  # another worker of the caller
    assert send(ask_often("another", 1), granted) == ["done"]  # a bucket of its own
    assert send(says_the_time(), rated)  # and so has a worker that nobody calls


def living():
    """The workers of this host; other tests may keep some."""
    return [entry["process"] for entry in FX.ListWorkerProcesses() | run]


def test_calls_leave_nothing():
    callees.register("double", double, policy="compute")
    granted = calls("double")
    send(FX.CallPlugin(plugin="double", arguments={"value": 1}), granted)  # templates stay
    before = living()
    with assert_nothing_left():
        for _ in range(5):
            send(FX.CallPlugin(plugin="double", arguments={"value": 1}), granted)
    assert living() == before


# --- whose policy


def test_callee_may_not_do_what_only_the_caller_may():
    @zef_function
    def dice():
        return FX.RandomBytes(count=4) | run

    @zef_function
    def both():
        mine = FX.RandomBytes(count=4) | run
        try:
            return mine, FX.CallPlugin(plugin="dice") | run
        except EffectFailed as failed:
            return mine, failed.kind, failed.message

    callees.register("dice", dice, policy=load_policy("compute").replaced(name="secret name", effects={"Print": True}))
    mine, kind, message = send(both(), calls("dice"))
    assert len(mine) == 4
    assert (kind, message) == ("denied", "the plugin 'dice' was denied FX.RandomBytes")


def test_callee_may_do_what_the_caller_may_not():
    @zef_function
    def now():
        return FX.Now() | run

    callees.register("clock", now, policy="compute")
    granted = load_policy("compute").replaced(name="only calls", effects={"CallPlugin": {"plugins": ["clock"]}})
    assert abs(send(FX.CallPlugin(plugin="clock"), granted) - time.time()) < 60
    with pytest.raises(EffectDenied):
        send(FX.Now(), granted)


def test_callees_state_is_its_own(tmp_path):
    folder = tmp_path.resolve() / "state"
    folder.mkdir(mode=0o700)
    rule = {"directory": str(folder)}

    @zef_function
    def keep():
        FX.KeyValueSet(key="k", value=b"of the callee") | run

    @zef_function
    def keep_and_call():
        FX.KeyValueSet(key="k", value=b"of the caller") | run
        FX.CallPlugin(plugin="keeper") | run
        return FX.KeyValueGet(key="k") | run

    callees.register("keeper", keep, policy=policy(KeyValueSet=rule))
    granted = policy(KeyValueSet=rule, KeyValueGet=rule, CallPlugin={"plugins": ["keeper"]})
    assert send(keep_and_call(), granted, "caller") == b"of the caller"
    assert sorted(os.listdir(folder)) == ["caller.sqlite", "keeper.sqlite"]


# --- chains


def test_chain_that_comes_back_is_refused_with_the_chain():
    callees.register("a", nest, policy=calls("b"))
    callees.register("b", nest, policy=calls("c"))
    callees.register("c", nest, policy=calls("a"))
    refused = failure(nest(["a", "b", "c", "a"]), calls("a"))
    assert (refused.kind, refused.message) == ("cycle", "'a' is waiting for this call already: a -> b -> c -> a")


def test_plugin_that_calls_itself_is_refused_also_under_the_name_its_worker_was_started_for():
    callees.register("a", nest, policy=calls("a"))
    assert failure(nest(["a", "a"]), calls("a")).message == "'a' is waiting for this call already: a -> a"
    assert failure(nest(["a"]), calls("a"), plugin="a").message == "'a' is waiting for this call already: a -> a"


def test_the_same_plugin_twice_but_not_below_itself_is_no_cycle():
    callees.register("double", double, policy="compute")
    assert send([ask("double", {"value": 1}), ask("double", {"value": 2})], calls("double")) == [2, 4]


def test_chain_of_eight_works_and_of_nine_is_refused():
    names = [f"p{number}" for number in range(1, 10)]
    for name, after in zip(names, [*names[1:], "p1"], strict=True):
        callees.register(name, nest, policy=calls(after))
    assert send(nest(names[:8]), calls("p1")) == 9
    refused = failure(nest(names), calls("p1"))
    assert refused.kind == "depth"
    assert refused.message.endswith(" -> ".join(names))


def test_depth_of_a_rule_counts_below_its_worker_and_holds_for_all_below():
    callees.register("a", nest, policy=calls("b", max_depth=8))
    callees.register("b", nest, policy=calls("c", max_depth=8))
    callees.register("c", nest, policy="compute")
    assert send(nest(["a", "b", "c"]), calls("a", max_depth=3)) == 4
    assert failure(nest(["a", "b", "c"]), calls("a", max_depth=2)).kind == "depth"
    assert send(nest(["a"]), calls("a", max_depth=1)) == 2


def test_many_chains_at_once_all_end():
    names = ["a", "b", "c"]
    for name, after in zip(names, ["b", "c", "a"], strict=True):
        callees.register(name, nest, policy=calls(after))
    workers = [FX.StartWorkerProcess(policy=calls("a")) | run for _ in range(6)]
    futures = [run.submit(FX.SendCommandToWorkerProcess(process=worker, command=nest(names))) for worker in workers]
    assert [future.result(60) for future in futures] == [4] * 6
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run


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


def test_effects_and_handles_in_arguments_are_data_to_the_callee():
    @zef_function
    def shown(value):
        return repr(value)

    callees.register("shown", shown, policy="compute")
    command = FX.CallPlugin(plugin="shown", arguments={"value": [FX.Sleep(seconds=100.0)]})
    assert send(command, calls("shown")) == "[FX.Sleep(seconds=100.0)]"


def test_effect_that_a_callee_answers_does_not_run_with_the_callers_policy():
    @zef_function
    def bait():
        return {"run me": FX.RandomBytes(count=1)}

    callees.register("bait", bait, policy="strict")
    assert send(FX.CallPlugin(plugin="bait"), calls("bait")) == {"run me": FX.RandomBytes(count=1)}


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


# --- registration


def test_registering_a_name_twice_or_an_impossible_one_is_refused(tmp_path):
    callees.register("double", double, policy="compute")
    with pytest.raises(PluginNotUsable, match="registered as 'double' already"):
        callees.register("double", double, policy="compute")
    with pytest.raises(PolicyError, match="not a plugin's name"):
        callees.register("Double", double, policy="compute")
    with pytest.raises(PluginNotUsable, match="one function"):
        callees.register("other", double, policy="compute", functions=("double",))
    with pytest.raises(PluginNotUsable, match="there is no plugin"):
        callees.register("other", tmp_path / "none.py", policy="compute")
    with pytest.raises(PolicyError, match="there is no profile"):
        callees.register("other", double, policy="computer")
    assert callees.registered() == ("double",)
