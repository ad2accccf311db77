"""CallPlugin: one plugin runs another under the other's policy and with its own state, and nothing of a call is left."""

import os
import time

import pytest

from fxcell import FX, EffectDenied, EffectFailed, PluginNotUsable, PolicyError, load_policy, run, zef_function
from fxcell.host import callees
from tests.host.calling import ask, calls, double, failure, living, policy, send
from tests.host.calling import nobody_registered as nobody_registered  # noqa: PLC0414 - the fixture
from tests.leaks import assert_nothing_left

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
