"""The three tiers, forced by taking layers away from a host in a process of its own: see tests/programs/without_layers.py.

Nothing weaker than what the policy names is ever built, what is refused is named with cause and fix, and nothing is left.
What the tier unprivileged still stops is tried with real attacks; the ordinary user's run does it where root cannot.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fxcell import FX, PolicyError, load_policy, run, zef_function
from fxcell.host import cgroups, templates
from fxcell.policies.words import NEVER
from fxcell.sandbox import plan
from tests.leaks import assert_nothing_left
from tests.programs.without_layers import run_without

COMPUTE, UNPRIVILEGED, TRUSTED = {}, {"isolation": "unprivileged"}, {"isolation": "trusted", "allow": []}
SMALL = {"limits": {"memory_bytes": 192 * 2**20}}
HOST = [sys.executable, "-m", "tests.programs.tier_host"]
ROOT_ONLY = pytest.mark.needs_root
pytestmark = pytest.mark.slow


def host_without(words, what, policy, *arguments):
    """What a host answers on a machine without these layers, after it has shown that nothing is left behind."""
    command = [*HOST, what, json.dumps(policy), *map(str, arguments)]
    host = run_without(
        words, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    output, errors = host.communicate(timeout=150)
    assert host.returncode == 0, errors
    told, left = map(json.loads, output.splitlines()[-2:])
    assert left == {"left": []}
    return told


def refused(told, layer, *words):
    assert list(told) == ["refused"], told
    found, cause, fix = told["refused"]
    assert found == layer, told
    for word in words:
        assert word in f"{cause} | {fix}"
    assert cause
    assert fix


def unless_closed(told):
    """What was told, or a skip where the interpreter is closed to the user that root's workers become."""
    if os.geteuid() == 0 and told.get("refused", [""])[0] == "privileges" and " as user " in told["refused"][1]:
        cause = told["refused"][1]
        pytest.skip(f"this interpreter is closed to other users ({cause}); the ordinary user's run does this")
    return told


# --- full, or nothing


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["no-user-namespaces"], "unshare answered EPERM"),
        (["no-mount"], "mount answered EPERM"),
        (["no-pivot-root"], "pivot_root answered EPERM"),
        (["no-mount-setattr"], "mount_setattr answered ENOSYS"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_full_is_refused_by_the_trial_of_the_whole_sequence(words, call):
    told = host_without(words, "start", COMPUTE)
    refused(told, "namespaces", call, "userns,", 'isolation = "unprivileged"')


def test_machine_with_everything_gives_full_also_to_a_policy_that_accepts_less():
    for policy in (COMPUTE, UNPRIVILEGED):
        told = host_without([], "start", policy)
        assert (told["tier"], told["layers"], told["answer"]) == ("full", list(plan.LAYERS), 5)


@pytest.mark.parametrize("policy", [COMPUTE, UNPRIVILEGED], ids=["full", "unprivileged"])
@pytest.mark.parametrize(
    ("word", "layer", "fix"),
    [("no-landlock", "landlock", "5.13"), ("no-notify", "seccomp", "5.0"), ("no-listener", "seccomp", "EBUSY")],
)
def test_layer_that_no_tier_goes_without_is_refused(policy, word, layer, fix):
    refused(host_without([word], "start", policy), layer, fix)


def test_trusted_starts_where_everything_is_missing():
    told = host_without(["no-user-namespaces", "no-landlock", "no-notify"], "start", TRUSTED)
    assert (told["tier"], told["layers"], told["answer"]) == ("trusted", list(plan.CONTAINMENT_LAYERS), 5)


@pytest.mark.parametrize(
    ("abi", "gaps"), [(1, ["linked", "truncate", "TCP", "ioctl", "signals"]), (2, ["truncate", "TCP"]), (3, ["TCP"])]
)
def test_old_landlock_works_and_its_gaps_are_told(abi, gaps):
    told = host_without([f"landlock-abi={abi}"], "start", COMPUTE)
    assert (told.get("tier"), told.get("abi"), told.get("answer")) == ("full", abi, 5), told
    assert told["layers"] == list(plan.LAYERS)
    for gap in gaps:
        assert any(gap in note for note in told["notes"]), gap


# --- unprivileged


def test_unprivileged_has_exactly_its_layers_each_read_back():
    told = unless_closed(host_without(["no-user-namespaces"], "start", UNPRIVILEGED))
    assert (told["tier"], told["answer"]) == ("unprivileged", 5)
    assert told["layers"] == ["limits", "privileges", "landlock", "seccomp", "hygiene"]
    assert told["enforced"] == sorted(told["layers"])
    assert any("no namespaces" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("policy", "layer", "word"),
    [
        ({"allow": ["scratch"], "limits": {"scratch_bytes": 2**20}}, "minimal_root", "scratch"),
        ({"allow": ["processes"], "limits": {"processes": 2}}, "namespaces", "processes"),
    ],
    ids=["scratch", "processes"],
)
def test_unprivileged_is_refused_for_what_only_namespaces_hold(policy, layer, word):
    told = host_without(["no-user-namespaces"], "start", UNPRIVILEGED | {"limits": {"threads": 0}} | policy)
    refused(told, layer, f'take "{word}" out of `allow`', "EPERM")


def test_threads_started_by_many_threads_at_one_moment_end_at_the_limit_that_no_cgroup_counts():
    policy = UNPRIVILEGED | {"allow": ["threads"], "limits": {"threads": 16}}
    counts = unless_closed(host_without(["no-user-namespaces"], "crowd", policy))
    assert counts == [17] * 20, "one room was given twice, or a thread within the limit was refused"


@ROOT_ONLY
def test_unprivileged_is_refused_to_root_for_what_its_workers_could_not_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    policy = UNPRIVILEGED | {"visible": [str(tmp_path / "closed")]}
    refused(
        host_without(["no-user-namespaces"], "start", policy), "privileges", "could not read", "every user may read"
    )


NUMBERS_OF_REFUSAL = {
    "signal a thread of the host": "1",
    "socket": "1",
    "unix socket": "1",
    "netlink": "1",
    "pidfd of the host": "(-1, 1)",
    "new user namespace": "(-1, 1)",  # by the filter that took the layer away: an errno goes before a notification
}
KILLED = {"ptrace the host", "read the host's memory", "run a program", "mount", "bpf", "keyctl"}
NOTHING_FOUND = {"look for the sentinel": "[]", "look at the parent": "[]", "plant files": "('/tmp', [])"}
SEEN = {"see that the sentinel exists": "True", "the neighbour answers": "5", "the neighbour is the same": "True"}


def test_attacks_fail_in_unprivileged_as_they_do_in_full(tmp_path):
    tmp_path.chmod(0o755)
    sentinel = tmp_path / "sentinel"
    sentinel.write_text("the secret of this test")
    sentinel.chmod(0o644)
    unless_closed(host_without(["no-user-namespaces"], "start", UNPRIVILEGED))
    told = host_without(["no-user-namespaces"], "attack", UNPRIVILEGED, sentinel)
    for name, outcome in told.items():
        exact = (NUMBERS_OF_REFUSAL | NOTHING_FOUND | SEEN).get(name)
        if exact is not None:
            assert outcome == exact, name
        elif name in KILLED:
            assert outcome.startswith("WorkerCrash: denied_syscall: "), (name, outcome)
        else:
            kinds = ("PermissionError", "OSError", "gaierror")
            assert outcome.startswith(tuple(f"PluginError: {kind}" for kind in kinds)), (name, outcome)
    assert len(told) > 35
    assert "the secret" not in json.dumps(told)
    assert sentinel.read_text() == "the secret of this test"
    assert os.listdir(tmp_path) == ["sentinel"]
    assert not os.path.exists("/tmp/fxcell-planted")
    assert not os.path.exists("/dev/shm/fxcell-planted")


def test_control_without_a_sandbox_the_same_attacks_work(tmp_path):
    sentinel = tmp_path / "sentinel"
    sentinel.write_text("the secret of this test")
    worker = FX.StartWorkerProcess(policy="trusted") | run
    from tests.escapes.test_host_files import list_folder, read_file

    assert (
        FX.SendCommandToWorkerProcess(process=worker, command=read_file(str(sentinel))) | run
        == b"the secret of this test"
    )
    assert "proc" in FX.SendCommandToWorkerProcess(process=worker, command=list_folder("/")) | run
    FX.StopWorkerProcess(process=worker) | run


def test_ends_are_attributed_in_unprivileged():
    unless_closed(host_without(["no-user-namespaces"], "start", UNPRIVILEGED))
    told = host_without(["no-user-namespaces"], "ends", UNPRIVILEGED | SMALL)
    assert {name: end[:2] for name, end in told.items() if name != "memory"} == {
        "abort": ["signal", signal.SIGABRT],
        "segfault": ["signal", signal.SIGSEGV],
        "deadline": ["deadline", signal.SIGKILL],
        "denied": ["denied_syscall", signal.SIGKILL],
    }
    assert told["memory"][0] == "out_of_memory"
    assert {tuple(end[3]) for end in told.values()} == {plan.UNPRIVILEGED_LAYERS}


def alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def gone_within(pids, seconds):
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        if time.monotonic() > end:
            return left
        time.sleep(0.01)
    return []


@pytest.mark.parametrize("whom", ["supervisor", "host", "worker"])
def test_worker_in_unprivileged_dies_with_its_supervisor_and_its_host(whom):
    unless_closed(host_without(["no-user-namespaces"], "start", UNPRIVILEGED))
    command = [*HOST, "stay", json.dumps(UNPRIVILEGED)]
    with assert_nothing_left():
        running = run_without(["no-user-namespaces"], command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            host, supervisor, worker, other_supervisor, other = json.loads(running.stdout.readline())
            assert host == running.pid
            victim = {"supervisor": supervisor, "host": host, "worker": worker}[whom]
            os.kill(victim, signal.SIGKILL)
            if whom == "host":
                assert gone_within([supervisor, worker, other_supervisor, other], 1.0) == []
            else:
                assert gone_within([supervisor, worker], 1.0) == []
                assert alive(other_supervisor)
                assert alive(other)
                running.stdin.write("\n")
                running.stdin.flush()
                assert json.loads(running.stdout.readline())[0] == "killed_externally"
                assert json.loads(running.stdout.readline()) == {"left": []}
        finally:
            if whom == "host":
                running.kill()
            running.stdin.close()
            running.wait(20)
            running.stdout.close()
            cgroups.sweep(cgroups.places(), older_than_s=0)


@zef_function
def leave_a_daemon():
    """Fork twice with a session of its own, as daemons do; answer the pid of what is left."""
    import os
    import time

    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            time.sleep(60)
        os._exit(0)
    return int(os.read(reader, 20))


@pytest.mark.parametrize("way", ["stop", "crash"])
def test_daemon_of_a_trusted_worker_ends_with_it_though_no_namespace_holds_it(way):
    worker = FX.StartWorkerProcess(policy="trusted") | run
    daemon = FX.SendCommandToWorkerProcess(process=worker, command=leave_a_daemon()) | run
    assert alive(daemon)
    if way == "crash":
        command = FX.SendCommandToWorkerProcess(process=worker, command=FX.Sleep(seconds=30), deadline_s=0.2)
        assert run.outcome(command).reason == "deadline"
    FX.StopWorkerProcess(process=worker) | run
    assert gone_within([daemon], 1.0) == []


# --- limits without a cgroup


def test_without_a_cgroup_the_crash_says_which_limit_it_was():
    if os.geteuid() != 0 and cgroups.places():
        pytest.skip("an ordinary user cannot hide the cgroups that were delegated to it")
    told = host_without(["no-cgroups"] if os.geteuid() == 0 else [], "ends", SMALL)
    reason, _, detail, layers = told["memory"]
    assert reason == "out_of_memory"
    assert "192 MiB (RLIMIT_DATA of the process (private memory only))" in detail
    assert layers == list(plan.LAYERS)


# --- what no tier grants


@pytest.mark.parametrize("word", sorted(NEVER))
def test_word_that_can_never_be_granted_is_refused_before_anything_starts(tmp_path, word):
    started = set(templates._templates)
    file = tmp_path / "wants.toml"
    file.write_text(f'extends = "compute"\nallow = ["threads", "{word}"]\n')
    with assert_nothing_left():
        with pytest.raises(PolicyError, match="can never be granted") as error:
            FX.StartWorkerProcess(policy=str(file)) | run
        assert (error.value.file, error.value.line) == (str(file), 2)
        for isolation in ("full", "unprivileged", "trusted"):
            with pytest.raises(PolicyError, match="can never be granted"):
                load_policy("strict").replaced(isolation=isolation, allow=frozenset({word}))
    assert set(templates._templates) == started
