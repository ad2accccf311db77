"""Every mistake a caller can make: one clear error that says what, where and what to do; the host goes on, nothing is left."""

import dataclasses
import os
import threading

import pytest

from fxcell import *
from fxcell.host.plugins import load_plugin
from fxcell.sandbox import plan
from fxcell.sandbox.probe import Probe
from tests.leaks import assert_nothing_left

MiB = 2**20
TIGHT = Policy(name="tight", limits=Limits(message_bytes=64 * 1024))


@zef_function
def echo(value):
    return value


@zef_function
def give(count):
    return b"x" * count


def send(process, command):
    return FX.SendCommandToWorkerProcess(process=process, command=command) | run


def stop(process):
    FX.StopWorkerProcess(process=process) | run


@pytest.fixture(autouse=True)
def host_goes_on_and_nothing_is_left():
    """Around every test: templates are there before the count, and a new worker answers after the mistake."""
    for policy in ("compute", TIGHT):
        stop(FX.StartWorkerProcess(policy=policy) | run)
    with assert_nothing_left():
        yield
        process = FX.StartWorkerProcess() | run
        assert send(process, echo("the host goes on")) == "the host goes on"
        stop(process)


def complaint(kind, mistake, *words):
    """The error's text, which must hold these words and be short."""
    with pytest.raises(kind) as raised:
        mistake()
    text = str(raised.value)
    for word in words:
        assert word in text
    assert len(text) < 700
    return raised.value


# --- effects


def test_unknown_effect_is_named_with_the_nearest_one():
    complaint(EffectError, lambda: FX.Prnt(content="x"), "FX.Prnt", "did you mean FX.Print?")
    assert not hasattr(FX, "NoSuchEffect")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: FX.Print(contents="x"), ["FX.Print", "'contents'", "did you mean 'content'?"]),
        (lambda: FX.Print(content="x", colour="red"), ["'colour'", "Its fields: content"]),
        (FX.Print, ["FX.Print", "'content'"]),
        (lambda: FX.Sleep(seconds="3"), ["FX.Sleep.seconds", "float", "str '3'"]),
        (lambda: FX.RandomBytes(count=True), ["FX.RandomBytes.count", "int", "bool"]),
        (lambda: FX.HTTPRequest(url=b"http://x/"), ["FX.HTTPRequest.url", "str", "bytes"]),
        (lambda: FX.HTTPRequest(url="x", headers={"a": 1}), ["FX.HTTPRequest.headers", "dict"]),
        (lambda: FX.SendCommandToWorkerProcess(process="w1", command=1), ["process", "WorkerProcess", "str 'w1'"]),
        (lambda: FX.StartWorkerProcess(policy=3), ["policy", "str | Policy", "int 3"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_unknown_missing_or_mistyped_field_is_named(mistake, words):
    complaint(EffectError, mistake, *words)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")], ids=str)
def test_deadline_that_is_no_time_is_refused_and_the_worker_stays(seconds):
    process = FX.StartWorkerProcess() | run
    command = FX.SendCommandToWorkerProcess(process=process, command=1, deadline_s=seconds)
    complaint(EffectError, lambda: command | run, "deadline_s", str(seconds))
    assert send(process, 1) == 1
    stop(process)


def test_wrong_number_of_arguments_of_a_call_is_python_s_own_error():
    with pytest.raises(TypeError, match="missing a required argument: 'value'"):
        echo()


def test_bytes_that_are_no_value_are_refused():
    complaint(DecodeError, lambda: FX.from_bytes(b"\xc1 nothing"), "not the bytes of an FX value")


# --- policies


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("limit = 1\n", 1, ["'limit'", "limits"]),
        ('extends = "compute"\n\n[limits]\nmemroy = "1 GiB"\n', 4, ["'memroy'", "memory"]),
        ('[limits]\nmemory = "1 GB of it"\n', 2, ["limits.memory", "MiB"]),
        ("[limits]\nwall = 0\n", 2, ["limits.wall"]),
        ('extends = "compute"\n[effects]\nHTTPRequest = { host = ["x.example"] }\n', 3, ["HTTPRequest", "'host'", "hosts"]),
        ("[effects]\nHTPRequest = true\n", 2, ["HTPRequest", "HTTPRequest"]),
        ("[effects]\nStartWorkerProcess = true\n", 2, ["StartWorkerProcess", "never be granted"]),
        ('allow = ["ptrace"]\n', 1, ["'ptrace'", "never be granted"]),
        ('extends = "no-such-profile"\n', 1, ["no-such-profile", "compute"]),
        ("this is no TOML\n", 1, ["TOML"]),
    ],
    ids=lambda value: value.strip().splitlines()[-1] if isinstance(value, str) else "",
)  # fmt: skip
def test_mistake_in_a_policy_file_is_told_with_file_and_line(tmp_path, text, line, words):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    error = complaint(PolicyError, lambda: FX.StartWorkerProcess(policy=str(file)) | run, f"{file}:{line}: ", *words)
    assert (error.file, error.line) == (str(file), line)


def test_unknown_policy_key_in_python_is_named():
    complaint(PolicyError, lambda: Policy.from_data({"effects": {}, "limit": {}}), "'limit'", "limits")


def test_missing_profile_is_told_with_those_that_exist():
    complaint(PolicyError, lambda: FX.StartWorkerProcess(policy="computer") | run, "'computer'", "compute", "strict", ".toml")


def test_missing_policy_file_is_told_with_its_path(tmp_path):
    path = str(tmp_path / "none.toml")
    complaint(PolicyError, lambda: FX.StartWorkerProcess(policy=path) | run, path, "No such file")


def test_missing_module_to_preload_is_told_with_the_policy_that_names_it():
    policy = Policy(name="wants-more", preload=("no_such_module",))
    start = FX.StartWorkerProcess(policy=policy)
    error = complaint(IsolationUnavailable, lambda: start | run, "'no_such_module'", "'wants-more'", "install it")
    assert error.layer == "preload"


def test_granted_directory_that_is_not_there_is_told(tmp_path):
    missing = str(tmp_path.resolve() / "gone")
    policy = Policy(name="sees", visible=(missing,))
    error = complaint(IsolationUnavailable, lambda: FX.StartWorkerProcess(policy=policy) | run, missing, "'sees'", "visible")
    assert error.layer == "visible"


# --- workers


def test_command_for_a_stopped_worker_says_how_to_start_one():
    process = FX.StartWorkerProcess() | run
    stop(process)
    complaint(WorkerStopped, lambda: send(process, 1), process.id, "stopped", "FX.StartWorkerProcess() | run")


def test_command_for_a_crashed_worker_says_how_it_crashed():
    @zef_function
    def leave():
        import os

        os._exit(4)

    process = FX.StartWorkerProcess() | run
    assert isinstance(run.outcome(FX.SendCommandToWorkerProcess(process=process, command=leave())), WorkerCrash)
    complaint(WorkerStopped, lambda: send(process, 1), process.id, "exited with status 4", "FX.StartWorkerProcess() | run")


def test_handle_of_another_process_is_unknown_here():
    complaint(WorkerStopped, lambda: send(WorkerProcess("w1-1-abcdef"), 1), "w1-1-abcdef", "another process")


# --- values


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "the value itself"),
        ([1, {"key": threading.Lock()}], "[1]['key']"),
        (echo(open), "builtin"),
        ({"n": [Ellipsis]}, "['n'][0]"),
    ],
    ids=["object", "lock in a dict", "argument of a call", "deep"],
)
def test_value_that_cannot_travel_is_told_with_its_place_and_the_worker_stays(value, place):
    process = FX.StartWorkerProcess() | run
    complaint(EncodeError, lambda: send(process, value), "cannot encode", place)
    assert send(process, 1) == 1
    stop(process)


def test_value_that_holds_itself_is_told():
    loop = []
    loop.append(loop)
    process = FX.StartWorkerProcess() | run
    complaint(EncodeError, lambda: send(process, echo(loop)), "contains itself")
    stop(process)


def test_function_that_captures_a_lock_is_told():
    lock = threading.Lock()

    @zef_function
    def locked():
        return lock

    process = FX.StartWorkerProcess() | run
    complaint(EncodeError, lambda: send(process, locked()), "locked", "inside the function")
    stop(process)


def test_result_that_cannot_travel_is_a_plugin_error_and_the_worker_stays():
    @zef_function
    def give_object():
        return [object()]

    process = FX.StartWorkerProcess() | run
    error = complaint(PluginError, lambda: send(process, give_object()), "EncodeError", "[0]")
    assert error.type_name == "EncodeError"
    assert send(process, 1) == 1
    stop(process)


@pytest.mark.parametrize(("policy", "size"), [(TIGHT, 100_000), ("compute", 129 * MiB)], ids=["tight", "compute"])
def test_message_over_the_cap_on_the_way_there_is_told_and_the_worker_stays(policy, size):
    process = FX.StartWorkerProcess(policy=policy) | run
    complaint(MessageTooLarge, lambda: send(process, echo(bytes(size))), "message_bytes", str(size)[:3])
    assert send(process, 1) == 1
    stop(process)


@pytest.mark.parametrize(("policy", "size"), [(TIGHT, 100_000), ("compute", 129 * MiB)], ids=["tight", "compute"])
def test_message_over_the_cap_on_the_way_back_is_told_and_the_worker_stays(policy, size):
    process = FX.StartWorkerProcess(policy=policy) | run
    complaint(PluginError, lambda: send(process, give(size)), "MessageTooLarge", "message_bytes")
    assert send(process, 1) == 1
    stop(process)


# --- plugins


def test_plugin_that_is_not_there_is_told_with_its_path(tmp_path):
    path = str(tmp_path / "none.py")
    complaint(PluginNotUsable, lambda: load_plugin(path), path)


def test_plugin_that_is_a_pipe_is_refused_and_does_not_block(tmp_path):
    path = tmp_path / "pipe.py"
    os.mkfifo(path)
    complaint(PluginNotUsable, lambda: load_plugin(path), str(path), "is a FIFO", "a .py file, or a folder")


def test_plugin_manifest_without_an_entry_is_told_with_the_line_to_write(tmp_path):
    (tmp_path / "plugin.toml").write_text('name = "half"\nversion = "1.0"\n')
    complaint(PolicyError, lambda: load_plugin(tmp_path), "plugin.toml", "'entry' is missing", 'entry = "')


def test_entry_that_the_plugin_lacks_is_told_with_those_it_has_and_the_worker_stays(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def main():\n    return 1\n")
    process = FX.StartWorkerProcess() | run
    complaint(PluginError, lambda: send(process, load_plugin(file, "mian").call()), "mine:mian", "Functions it has: main")
    assert send(process, load_plugin(file).call()) == 1
    stop(process)


# --- machines

GOOD = Probe(
    system="linux", machine="x86_64", kernel="6.12.0", python="3.11.2", uid=1000, outside_uid=1000, landlock_abi=6,
    seccomp_notify=True, namespaces_error="",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "layer", "words"),
    [
        ({"system": "darwin"}, "kernel", ["darwin", "Linux"]),
        ({"machine": "riscv64"}, "seccomp", ["riscv64", "x86_64"]),
        ({"namespaces_error": "could not enter a user namespace: unshare answered EPERM"}, "namespaces", ["EPERM", "sysctl"]),
        ({"landlock_abi": 0, "kernel": "5.10.0"}, "landlock", ["5.10.0", "5.13"]),
        ({"seccomp_notify": False, "kernel": "4.19.0"}, "seccomp", ["4.19.0", "5.0"]),
    ],
    ids=["not Linux", "other machine", "no namespaces", "no Landlock", "no notification"],
)
@pytest.mark.parametrize("policy", ["strict", "compute", "network"])
def test_machine_without_a_required_layer_is_refused_with_layer_cause_and_fix(policy, changes, layer, words):
    probe = dataclasses.replace(GOOD, **changes)
    error = complaint(IsolationUnavailable, lambda: plan.make(load_policy(policy), probe), layer, *words)
    assert error.layer == layer
    assert error.fix


def test_complete_machine_gets_every_layer():
    planned = plan.make(load_policy("strict"), GOOD)
    assert planned.layers == plan.LAYERS
    assert planned.notes == ()


def test_trusted_profile_needs_no_layer_but_is_still_refused_off_linux():
    poor = dataclasses.replace(GOOD, landlock_abi=0, seccomp_notify=False, namespaces_error="EPERM")
    assert plan.make(load_policy("trusted"), poor).filtered is False
    complaint(IsolationUnavailable, lambda: plan.make(load_policy("trusted"), dataclasses.replace(poor, system="win32")), "win32")


def test_descriptors_run_out_is_one_error_and_not_the_end():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on numbers, not on how many are open: all below it but one are taken.
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = next(number for number in range(soft) if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises((OSError, FxcellError)):
            FX.StartWorkerProcess() | run
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
