"""Policy: what is accepted, what can never be granted, and the digest."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import Limits, MiB
from fxcell.policies.loader import load_policy, profile_names
from fxcell.policies.policy import Isolation, Policy
from fxcell.policies.rules import NEVER_GRANTED, FileRule, HTTPRule, PlainRule
from fxcell.policies.words import NEVER, WORDS

FULL = {
    "effects": {
        "Print": True,
        "Sleep": {"max_seconds": 10},
        "Log": {"level": ["info", "error"], "max_calls": 5},
        "HTTPRequest": {"hosts": ["b.example.com", "a.example.com:8443"], "methods": ["GET"]},
        "ReadFile": {"under": ["/srv/data"], "max_bytes": "1 MiB"},
    },
    "allow": ["threads", "scratch", "processes"],
    "limits": {"scratch_bytes": 5 * MiB, "processes": 4},
    "visible": ["/srv/data"],
    "preload": ["json", "xml.dom"],
    "name": "full",
    "description": "everything",
}


def full() -> Policy:
    return Policy.from_data(FULL)


def test_empty_policy_grants_nothing():
    policy = Policy()
    assert (dict(policy.effects), policy.allow, policy.visible, policy.preload) == ({}, frozenset(), (), ())
    assert policy.isolation is Isolation.FULL


def test_words_are_those_of_the_system_call_table():
    syscalls = pytest.importorskip("fxcell.sandbox.syscalls")
    assert set(WORDS) == set(syscalls.BY_WORD)


def test_words_and_never_words_are_disjoint():
    assert not set(WORDS) & set(NEVER)


def test_data_round_trip_is_lossless():
    policy = full()
    again = Policy.from_data(policy.to_data())
    assert again == policy
    assert again.to_data() == policy.to_data()
    assert again.digest == policy.digest


@pytest.mark.parametrize("name", profile_names())
def test_profiles_survive_data_pickle_and_copy(name):
    policy = load_policy(name)
    for again in (Policy.from_data(policy.to_data()), pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)):
        assert again == policy
        assert hash(again) == hash(policy)


def test_rules_survive_pickle():
    for rule in full().effects.values():
        again = pickle.loads(pickle.dumps(rule))
        assert again == rule
        assert hash(again) == hash(rule)


def test_digest_ignores_name_description_and_order():
    policy = full()
    turned = {key: FULL[key] for key in reversed(FULL)}
    turned["effects"] = {key: FULL["effects"][key] for key in reversed(FULL["effects"])}
    turned["allow"] = list(reversed(FULL["allow"]))
    assert Policy.from_data(turned).digest == policy.digest
    assert policy.replaced(name="other", description="").digest == policy.digest
    assert policy.replaced(name="other") != policy


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": Limits(scratch_bytes=6 * MiB, processes=4)},
        {"effects": {}},
        {"preload": ("xml.dom", "json")},
        {"visible": ()},
        {"effects": {"Print": {"max_calls": 3}}},
        {"allow": {"scratch", "processes"}},
    ],
    ids=str,
)
def test_digest_changes_with_anything_that_counts(changes):
    assert full().replaced(**changes).digest != full().digest


def test_digest_is_the_same_in_another_process_with_another_hash_seed():
    code = (
        "from fxcell.policies.loader import load_policy, profile_names\n"
        "print(*(load_policy(name).digest for name in profile_names()))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {" ".join(load_policy(name).digest for name in profile_names()) + "\n"}


def test_numbers_of_equal_value_give_one_digest():
    one, two = (Policy(effects={"Sleep": {"max_seconds": bound}}) for bound in (10, 10.0))
    assert one.digest == two.digest


def test_type_twins_in_rules_are_different_policies():
    one, two = (Policy(effects={"Print": {"content": [value]}}) for value in (1, True))
    assert one != two
    assert one.digest != two.digest


def test_policy_is_immutable():
    policy = full()
    with pytest.raises(AttributeError):
        policy.name = "x"
    with pytest.raises(TypeError):
        policy.effects["ReadFile"] = PlainRule()
    with pytest.raises(TypeError):
        policy.effects["Log"].allowed["level"] = ()
    with pytest.raises(AttributeError):
        policy.effects["HTTPRequest"].hosts = ("evil.example",)


def test_later_change_of_what_was_given_changes_nothing():
    hosts, effects = ["a.example.com"], {}
    effects["HTTPRequest"] = {"hosts": hosts}
    policy = Policy(effects=effects)
    hosts.append("evil.example")
    effects["Print"] = True
    assert list(policy.effects) == ["HTTPRequest"]
    assert policy.effects["HTTPRequest"].hosts == ("a.example.com",)


def test_worker_part_has_no_effects_and_keeps_the_rest():
    part = full().worker_part()
    assert not part.effects
    assert part.replaced(effects=FULL["effects"]) == full()


@pytest.mark.parametrize("word", sorted(NEVER))
def test_never_words_are_refused_with_the_reason(word):
    with pytest.raises(PolicyError, match=f"'{word}' can never be granted") as caught:
        Policy(allow=[word])
    assert NEVER[word] in str(caught.value)


@pytest.mark.parametrize("effect", sorted(NEVER_GRANTED))
def test_effects_on_workers_are_refused_with_the_reason(effect):
    with pytest.raises(PolicyError, match=f"{effect} can never be granted to a worker"):
        Policy(effects={effect: True})


BAD = [
    ({"allow": ["thread"]}, "did you mean 'threads'"),
    ({"allow": ["Threads"]}, "no word 'Threads'"),
    ({"allow": ["threads", "threads"]}, "'threads' twice"),
    ({"allow": "threads"}, "allow must be a list"),
    ({"allow": [1]}, "allow must hold texts"),
    ({"allow": [""]}, "allow must hold texts"),
    ({"allow": None}, "allow must be a list"),
    ({"allow": ["scratch"]}, r'without effect: allow = \["scratch"\]'),
    ({"limits": Limits(scratch_bytes=1)}, "without effect: limits.scratch"),
    ({"limits": Limits(processes=2)}, "without effect: limits.processes over 1"),
    ({"allow": ["processes"]}, r'without effect: allow = \["processes"\]'),
    ({"allow": ["threads"], "limits": Limits(threads=0)}, r'without effect: allow = \["threads"\]'),
    ({"isolation": "trusted", "allow": ["threads"]}, "allow is without effect"),
    ({"isolation": "trusted", "visible": ["/srv"]}, "visible is without effect"),
    ({"isolation": "none"}, 'isolation must be "full", "unprivileged" or "trusted"'),
    ({"isolation": "FULL"}, "isolation must be"),
    ({"isolation": None}, "isolation must be"),
    ({"limits": {}}, "limits must be a Limits"),
    ({"limits": None}, "limits must be a Limits"),
    ({"effects": None}, "effects must be a table"),
    ({"effects": ["Print"]}, "effects must be a table"),
    ({"effects": {1: True}}, "effects must be named by texts"),
    ({"effects": {"Pront": True}}, "did you mean 'Print'"),
    ({"effects": {"print": True}}, "no effect 'print'"),
    ({"effects": {"Effect": True}}, "no effect 'Effect'"),
    ({"effects": {"Print": 1}}, "effects.Print must be true or a table"),
    ({"effects": {"Print": False}}, "effects.Print must be true or a table"),
    ({"effects": {"Print": None}}, "effects.Print must be true or a table"),
    ({"effects": {"Print": HTTPRule(hosts=["a.b"])}}, "effects.Print takes a PlainRule"),
    ({"effects": {"ReadFile": PlainRule()}}, "effects.ReadFile takes a FileRule"),
    ({"effects": {"ReadFile": True}}, "effects.ReadFile needs 'under'"),
    ({"effects": {"HTTPRequest": True}}, "effects.HTTPRequest needs 'hosts'"),
    ({"visible": ["srv"]}, "not an absolute path"),
    ({"visible": ["/"]}, "can never be granted"),
    ({"visible": ["/srv/../etc"]}, r"'\.' or '\.\.'"),
    ({"visible": ["/srv/./x"]}, r"'\.' or '\.\.'"),
    ({"visible": ["/srv//x"]}, "doubled or trailing slash"),
    ({"visible": ["/srv/"]}, "doubled or trailing slash"),
    ({"visible": ["/srv\0"]}, "NUL"),
    ({"visible": ["/proc"]}, "can never be granted"),
    ({"visible": ["/proc/self"]}, "can never be granted"),
    ({"visible": ["/sys/kernel"]}, "can never be granted"),
    ({"visible": ["/dev"]}, "can never be granted"),
    ({"visible": "/srv"}, "visible must be a list"),
    ({"preload": ["os; import x"]}, "not the dotted name"),
    ({"preload": ["a..b"]}, "not the dotted name"),
    ({"preload": ["nümpy"]}, "not the dotted name"),
    ({"preload": [".x"]}, "not the dotted name"),
    ({"preload": ["json", "json"]}, "twice"),
    ({"preload": {"json", "xml"}}, "its order counts"),
    ({"preload": ["__main__"]}, "cannot be named"),
    ({"preload": ["fxcell.host"]}, "cannot be named"),
    ({"name": None}, "name must be a text"),
    ({"description": 5}, "description must be a text"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[repr(fields) for fields, _ in BAD])
def test_unusable_field_is_a_policy_error(fields, message):
    with pytest.raises(PolicyError, match=message):
        Policy(**fields)


@pytest.mark.parametrize(
    "data", [None, [], 1, "x", {"nmae": "x"}, {1: 2}, {"limits": {"memory": 1}}, {"effects": {"X": 1}}]
)
def test_data_of_another_shape_is_a_policy_error(data):
    with pytest.raises(PolicyError):
        Policy.from_data(data)


def test_directories_beside_kernel_trees_are_usable():
    policy = Policy(visible=["/procedures", "/system"], effects={"ReadFile": FileRule(under=["/devices"])})
    assert policy.visible == ("/procedures", "/system")
