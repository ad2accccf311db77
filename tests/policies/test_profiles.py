"""The shipped profiles: what each promises."""

from __future__ import annotations

import pytest

from fxcell.policies.builtin import HTTPRequest, RandomBytes, ReadFile, Sleep, StartWorkerProcess
from fxcell.policies.errors import EffectDenied
from fxcell.policies.limits import GiB, MiB
from fxcell.policies.loader import load_policy, load_profile, profile_names
from fxcell.policies.policy import Isolation
from fxcell.policies.rules import check

BASIC = {"Print", "Log", "Now"}
USUAL = BASIC | {"Sleep", "RandomBytes"}

# name, isolation, words, effects, memory, preload
PROFILES = [
    ("strict", "full", set(), BASIC, 128 * MiB, ()),
    ("compute", "full", {"threads", "load_libraries"}, USUAL, 512 * MiB, ()),
    ("numeric", "full", {"threads", "load_libraries"}, USUAL, 2 * GiB, ("numpy",)),
    ("imaging", "full", {"threads", "load_libraries"}, USUAL, 1 * GiB, ("PIL.Image",)),
    ("network", "full", {"threads", "load_libraries"}, USUAL | {"HTTPRequest"}, 512 * MiB, ()),
    ("trusted", "trusted", set(), USUAL, 512 * MiB, ()),
]


def test_every_profile_is_in_the_table():
    assert {row[0] for row in PROFILES} == set(profile_names())


@pytest.mark.parametrize("row", PROFILES, ids=[row[0] for row in PROFILES])
def test_profile_grants_exactly_this(row):
    name, isolation, words, effects, memory_bytes, preload = row
    policy = load_policy(name)
    assert policy.name == name
    assert policy.description
    assert policy.isolation is Isolation(isolation)
    assert policy.allow == words
    assert set(policy.effects) == effects
    assert policy.limits.memory_bytes == memory_bytes
    assert policy.preload == preload
    assert policy.visible == ()
    assert policy.limits.processes == 1
    assert policy.limits.scratch_bytes == 0
    assert policy.limits.file_bytes == 0


@pytest.mark.parametrize("name", profile_names())
def test_no_profile_reads_files_or_private_hosts(name):
    policy = load_policy(name)
    for effect in (ReadFile(path="/etc/passwd"), HTTPRequest(url="http://127.0.0.1/"), StartWorkerProcess()):
        with pytest.raises(EffectDenied):
            check(policy, effect)


def test_network_grants_public_get_only():
    policy = load_policy("network")
    check(policy, HTTPRequest(url="https://example.com/"))
    for effect in (
        HTTPRequest(url="https://example.com/", method="POST"),
        HTTPRequest(url="https://example.com:8443/"),
        HTTPRequest(url="http://localhost/"),
        HTTPRequest(url="http://169.254.169.254/"),
    ):
        with pytest.raises(EffectDenied):
            check(policy, effect)


def test_compute_bounds_what_the_host_does():
    policy = load_policy("compute")
    check(policy, Sleep(seconds=60))
    check(policy, RandomBytes(count=1 << 20))
    for effect in (Sleep(seconds=61), RandomBytes(count=(1 << 20) + 1)):
        with pytest.raises(EffectDenied):
            check(policy, effect)


def test_strict_is_narrower_than_compute():
    strict, compute = load_policy("strict"), load_policy("compute")
    assert strict.allow < compute.allow
    assert set(strict.effects) < set(compute.effects)
    for name, value in strict.limits.to_data().items():
        assert value <= compute.limits.to_data()[name], name


def test_trusted_says_that_it_is_no_sandbox():
    assert "no sandbox" in load_policy("trusted").description


def test_default_of_start_is_compute():
    assert StartWorkerProcess().policy == "compute"


def test_digests_differ_and_profiles_are_read_once():
    assert len({load_policy(name).digest for name in profile_names()}) == len(profile_names())
    assert load_profile("compute") is load_profile("compute")
