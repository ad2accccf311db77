"""What is only worth asking in the kernel lab: this kernel's own versions of the layers, and workers under each profile."""

import os
import platform
import subprocess
import sys

import pytest

from fxcell import FX, Policy, WorkerCrash, load_policy, run, zef_function
from fxcell.host import cgroups, templates
from fxcell.sandbox.kernel import landlock
from tests import leaks

ROUNDS = 100


@zef_function
def add(a, b):
    return a + b


@zef_function
def crash(how):
    import os
    import signal

    if how == 0:
        os._exit(1)
    if how == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == 2:
        os.write(3, b"no frame at all, and no magic either")
    return "alive"


def test_lab_is_an_old_kernel_with_cgroup_v2():
    """The point of the lab: a kernel without what newer ones have. Another one may be asked for with --kernel."""
    version = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    assert version >= (6, 1)
    if version == (6, 1):
        assert landlock.abi_version() == 2
    assert {place.version for place in cgroups.places().values()} == {2}
    assert sorted(cgroups.places()) == ["memory", "pids"]
    assert cgroups.missing() == ""


@pytest.mark.parametrize("policy", ["strict", "compute", "numeric", "imaging", "network", "trusted"])
def test_worker_of_each_profile_starts_with_every_layer_and_answers(policy):
    with leaks.assert_nothing_left():
        worker = FX.StartWorkerProcess(policy=policy) | run
        templates_plan = templates._templates[load_policy(policy).digest].plan
        assert FX.SendCommandToWorkerProcess(process=worker, command=add(2, 3)) | run == 5
        assert FX.SendCommandToWorkerProcess(process=worker, command=FX.Now()) | run > 0 or policy == "strict"
        FX.StopWorkerProcess(process=worker) | run
        templates.close_all()
    if policy != "trusted":
        assert {"namespaces", "minimal_root", "landlock", "seccomp"} <= set(templates_plan.layers)
        assert any("TCP" in note for note in templates_plan.notes) == (landlock.abi_version() < 4)


def test_a_hundred_crashes_and_respawns_leave_nothing():
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run
    with leaks.assert_nothing_left():
        for number in range(ROUNDS):
            worker = FX.StartWorkerProcess() | run
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=crash(number % 4)))
            if number % 4 == 3:
                assert outcome == "alive"
                FX.StopWorkerProcess(process=worker) | run
            else:
                assert isinstance(outcome, WorkerCrash), outcome


@pytest.mark.parametrize(
    ("command", "last_words"),
    [("doctor", "Tier of this machine: full."), ("selftest", "0 NOT CONTAINED.")],
    ids=["doctor", "selftest"],
)
def test_doctor_and_selftest_say_that_everything_holds(command, last_words):
    done = subprocess.run([sys.executable, "-m", "fxcell", command], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_words in done.stdout.splitlines()[-1]


def test_worker_sits_in_a_group_of_its_own_with_the_limits_of_its_policy():
    policy = Policy(name="group")
    limits = policy.limits
    worker = FX.StartWorkerProcess(policy=policy) | run
    folder = cgroups.places()["memory"].folder
    groups = [name for name in os.listdir(folder) if name.startswith(f"fxcell-{os.getpid()}-")]
    (group,) = [f"{folder}/{name}" for name in groups]
    read = {}
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs"):
        with open(f"{group}/{name}", encoding="ascii") as file:
            read[name] = file.read().split()
    FX.StopWorkerProcess(process=worker) | run
    assert read.pop("memory.swap.max", ["0"]) == ["0"]
    assert len(read.pop("cgroup.procs")) == 1
    assert read == {
        "memory.max": [str(limits.memory_bytes)],
        "memory.oom.group": ["1"],
        "pids.max": [str(limits.processes + limits.threads)],
    }
    assert not os.path.exists(group)
