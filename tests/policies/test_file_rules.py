"""FileRule: what is granted, and that no other spelling of it is."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcell.policies.builtin import ReadFile
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied
from fxcell.policies.policy import Policy
from fxcell.policies.rules import check, granted_root


def policy(**effects) -> Policy:
    return Policy(name="test", effects=effects)


def denied(granted: Policy, effect: Effect) -> EffectDenied:
    with pytest.raises(EffectDenied) as caught:
        check(granted, effect)
    assert caught.value.effect == effect.effect_name
    assert caught.value.policy == "test"
    return caught.value


FILES = [
    ("/srv/data/a", True),
    ("/srv/data/a/b.txt", True),
    ("/srv/data/...", True),
    ("/srv/data/a b\n", True),
    ("/srv/data/é", True),
    ("/srv/data", False),
    ("/srv/data/", False),
    ("/srv/data//a", False),
    ("//srv/data/a", False),
    ("/srv/data/./a", False),
    ("/srv/data/../data/a", False),
    ("/srv/data/..", False),
    ("/srv/data/.", False),
    ("/srv/database/a", False),
    ("/srv/Data/a", False),
    ("/SRV/data/a", False),
    ("/srv/dat\u0430/a", False),
    ("srv/data/a", False),
    ("./srv/data/a", False),
    ("~/x", False),
    ("file:///srv/data/a", False),
    ("/srv/data/a\0", False),
    ("/srv/data\0/a", False),
    ("/srv/data/\ud800", False),
    ("/srv/data/" + "a" * 4095, False),
    ("", False),
    ("/", False),
    ("/etc/passwd", False),
]


@pytest.mark.parametrize(("path", "granted"), FILES, ids=lambda v: repr(v)[:40])
def test_file_paths(path, granted):
    held = policy(ReadFile={"under": ["/srv/data"]})
    if granted:
        check(held, ReadFile(path=path))
        assert granted_root(held, path) == ("/srv/data", path.removeprefix("/srv/data/"))
        return
    assert denied(held, ReadFile(path=path)).field == "path"
    with pytest.raises(EffectDenied):
        granted_root(held, path)


def test_unicode_forms_of_a_directory_are_different_directories():
    held = policy(ReadFile={"under": ["/srv/caf\u00e9"]})
    check(held, ReadFile(path="/srv/caf\u00e9/x"))
    denied(held, ReadFile(path="/srv/cafe\u0301/x"))


def test_longest_granted_directory_wins():
    held = policy(ReadFile={"under": ["/srv", "/srv/data"]})
    assert granted_root(held, "/srv/data/x") == ("/srv/data", "x")
    assert granted_root(held, "/srv/x") == ("/srv", "x")


def test_root_without_a_rule_is_denied():
    with pytest.raises(EffectDenied, match="not in its list"):
        granted_root(policy(), "/srv/x")


def test_file_denial_suggests_the_directory_unless_it_is_the_kernels():
    held = policy(ReadFile={"under": ["/srv"]})
    assert denied(held, ReadFile(path="/opt/x/y")).suggestion == 'effects.ReadFile.under = ["/srv", "/opt/x"]'
    assert denied(held, ReadFile(path="/proc/self/environ")).suggestion == ""


@given(st.lists(st.sampled_from(["srv", "data", "..", ".", "", "Data", "x"]), max_size=6))
def test_no_path_is_granted_that_normalises_to_another_place(parts):
    path = "/" + "/".join(parts)
    try:
        check(policy(ReadFile={"under": ["/srv/data"]}), ReadFile(path=path))
    except EffectDenied:
        return
    assert posixpath.normpath(path) == path
    assert path.startswith("/srv/data/")
