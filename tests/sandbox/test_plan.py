"""plan.make is pure: what is missing is refused by name, with cause and fix; never a weaker plan instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fxcell import IsolationUnavailable, load_policy
from fxcell.sandbox import plan
from fxcell.sandbox.probe import Probe

WHOLE = Probe(
    system="linux", machine="x86_64", kernel="6.12.0", python="3.11.2", uid=1000, outside_uid=1000, landlock_abi=6,
    seccomp_notify=True, namespaces_error="",
)  # fmt: skip
COMPUTE, TRUSTED = load_policy("compute"), load_policy("trusted")
MISSING = {
    "another system": ({"system": "darwin"}, "kernel", "darwin", "Linux"),
    "another machine": ({"machine": "riscv64"}, "seccomp", "riscv64", "x86_64 or aarch64"),
    "no namespaces": (
        {"namespaces_error": "could not unshare user: EPERM"},
        "namespaces",
        "EPERM",
        "unprivileged_userns_clone",
    ),
    "no namespaces for root": (
        {"namespaces_error": "could not mount: EACCES", "uid": 0},
        "namespaces",
        "EACCES",
        "as root",
    ),
    "no Landlock": ({"landlock_abi": 0, "kernel": "5.10.0"}, "landlock", "5.10.0", "lsm="),
    "no user notification": ({"seccomp_notify": False, "kernel": "4.19.0"}, "seccomp", "4.19.0", "5.0"),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_layer_is_refused_with_layer_cause_and_fix(name):
    changes, layer, cause, fix = MISSING[name]
    with pytest.raises(IsolationUnavailable) as refusal:
        plan.make(COMPUTE, replace(WHOLE, **changes))
    assert refusal.value.layer == layer
    assert cause in refusal.value.cause
    assert fix in refusal.value.fix
    assert layer in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_whole_machine_gets_every_layer():
    made = plan.make(COMPUTE, WHOLE)
    assert (made.layers, made.namespaces, made.words, made.landlock_abi, made.outside_uid) == (
        plan.LAYERS, True, COMPUTE.allow, 6, 1000,
    )  # fmt: skip
    assert made.notes == ()


@pytest.mark.parametrize(("abi", "notes"), [(1, 5), (2, 4), (3, 3), (4, 2), (5, 1), (6, 0), (7, 0), (99, 0)])
def test_older_landlock_is_used_and_its_gaps_are_told(abi, notes):
    made = plan.make(COMPUTE, replace(WHOLE, landlock_abi=abi))
    assert made.layers == plan.LAYERS
    assert len(made.notes) == notes


def test_two_missing_layers_are_refused_by_the_first():
    with pytest.raises(IsolationUnavailable) as refusal:
        plan.make(COMPUTE, replace(WHOLE, namespaces_error="EPERM", landlock_abi=0))
    assert refusal.value.layer == "landlock"


@pytest.mark.parametrize(
    "changes",
    [{}, {"landlock_abi": 0}, {"namespaces_error": "EPERM"}, {"seccomp_notify": False}, {"machine": "riscv64"}],
    ids=str,
)
def test_trusted_needs_no_layer_and_claims_none(changes):
    made = plan.make(TRUSTED, replace(WHOLE, **changes))
    assert made.layers == plan.CONTAINMENT_LAYERS
    assert (made.namespaces, made.filtered) == (False, False)


def test_trusted_is_refused_on_another_system():
    with pytest.raises(IsolationUnavailable, match="kernel"):
        plan.make(TRUSTED, replace(WHOLE, system="darwin"))


def test_same_data_give_the_same_plan():
    assert plan.make(COMPUTE, WHOLE) == plan.make(load_policy("compute"), replace(WHOLE))
