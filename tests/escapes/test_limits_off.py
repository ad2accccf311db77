"""A limit that is claimed to be off: refused when the policy is built, before anything is started."""

import math

import pytest

from fxcell import FX, Limits, PolicyError, load_policy, run, zef_function

NAMES = sorted(load_policy("compute").limits.to_data())


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, -1, "unlimited", True, 2**100], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_limit_that_is_no_limit_is_refused(name, value):
    with pytest.raises(PolicyError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        "memory_bytes",
        "cpu_s",
        "wall_s",
        "start_s",
        "processes",
        "open_files",
        "message_bytes",
        "stack_bytes",
        "scratch_files",
    ],
)
def test_limit_of_nothing_is_refused(name):
    with pytest.raises(PolicyError, match=name):
        Limits(**{name: 0})


@zef_function
def limits_inside():
    import resource

    return {
        name: resource.getrlimit(getattr(resource, name))
        for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_STACK")
    }


@zef_function
def raise_limits():
    import resource

    raised = []
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            try:
                resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            except (OSError, ValueError):
                continue
            raised.append(name)
    return raised


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_limits_of_the_process_are_finite_and_cannot_be_raised(arena, policy):
    spec = load_policy(policy)
    for name, (soft, hard) in arena.attack(limits_inside(), spec).items():
        assert 0 <= soft <= hard < 2**63 - 1, name
    assert arena.attack(raise_limits(), spec) == []


@zef_function
def open_files_without_end():
    import os

    opened = []
    try:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return len(opened), error.errno


def test_open_files_end_at_the_limit(arena):
    count, error = arena.attack(open_files_without_end())
    assert error == 24  # EMFILE
    assert count <= load_policy("compute").limits.open_files


@zef_function
def read_random_without_end():
    with open("/dev/urandom", "rb") as file:
        while True:
            file.read(1 << 20)


def test_random_bytes_without_end_are_ended_by_the_cpu_limit(arena):
    spec = load_policy("compute").replaced(
        name="short", limits=Limits(**{**load_policy("compute").limits.to_data(), "cpu_s": 0.3})
    )
    assert arena.attack(read_random_without_end(), spec).reason == "cpu_limit"
    assert FX.ListWorkerProcesses() | run
