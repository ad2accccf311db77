"""Every line that a denial offers loads, and then grants what was denied; where no line can, none is offered."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcell.policies.builtin import (
    DeleteFile,
    GetEnvironment,
    HTTPRequest,
    ListDirectory,
    Log,
    RandomBytes,
    ReadFile,
    Sleep,
    WriteFile,
)  # fmt: skip
from fxcell.policies.effects import FX, Effect
from fxcell.policies.errors import EffectDenied
from fxcell.policies.loader import load_policy
from fxcell.policies.policy import Policy
from fxcell.policies.rules import check
from fxcell.policies.toml_text import to_toml


class Größe(Effect):  # noqa: PLC2401
    """An effect whose names are no bare keys of TOML."""

    länge: int = 0  # noqa: PLC2401
    wort: str = ""


def suggestion_for(effect, **rules):
    """The line that the denial offers; the effect must be denied."""
    with pytest.raises(EffectDenied) as caught:
        check(Policy(name="test", effects=rules), effect)
    assert caught.value.suggestion in str(caught.value)
    return caught.value.suggestion


def pasted(tmp_path, line, **rules):
    """The policy from a file with these rules and the line: one key of a rule replaced, or the rule as a whole."""
    effects = Policy(effects=rules).to_data()["effects"]
    for name, given_rule in tomllib.loads(line)["effects"].items():
        one_key = isinstance(given_rule, dict) and " = {" not in line
        effects[name] = {**effects.get(name, {}), **given_rule} if one_key else given_rule
    file = tmp_path / "pasted.toml"
    file.write_text(to_toml(Policy(name="test", effects=effects)), encoding="utf-8")
    return load_policy(str(file))


CHARACTERS = st.one_of(
    st.sampled_from("/.ab\x7f\x00\n\"'\\ ~*é\u0301\u202e\ud800\U0001f600"), st.characters(codec=None)
)
PATHS = st.one_of(
    st.text(CHARACTERS, max_size=40),
    st.text(CHARACTERS, max_size=40).map(lambda text: f"/{text}"),
    st.lists(st.text(CHARACTERS, min_size=1, max_size=8), min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts)),
)
URLS = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}/{path}",
    st.sampled_from(["http", "https", "ftp", "HTTP"]),
    st.sampled_from(["a.b", "x.example", "localhost", "127.0.0.1", "[::1]", "10.0.0.1", "8.8.8.8", "bücher.example", "A.b", ""]),
    st.sampled_from(["", ":80", ":443", ":8080", ":0", ":99999"]),
    st.text(max_size=5),
)
EFFECTS = st.one_of(
    st.builds(ReadFile, path=PATHS),
    st.builds(ListDirectory, path=PATHS),
    st.builds(DeleteFile, path=PATHS),
    st.builds(
        WriteFile, path=PATHS, content=st.binary(max_size=40), mode=st.sampled_from(["create", "replace", "append"])
    ),
    st.builds(GetEnvironment, name=st.one_of(st.text(CHARACTERS, max_size=10), st.text("ABC_.-x9*", max_size=5))),
    st.builds(
        HTTPRequest,
        url=URLS,
        method=st.sampled_from(["GET", "POST", "get", "CONNECT", 'P"T', ""]),
        body=st.binary(max_size=40),
        timeout_s=st.sampled_from([1.0, 0.0, float("inf")]),
    ),
    st.builds(Log, message=st.text(max_size=5), level=st.text(CHARACTERS, max_size=20)),
    st.builds(Sleep, seconds=st.floats()),
    st.builds(RandomBytes, count=st.integers()),
    st.builds(Größe, länge=st.integers(), wort=st.text(CHARACTERS, max_size=20)),
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "ReadFile": st.sampled_from([{"under": ["/srv"]}, {"under": ["/srv/a b", "/opt"], "max_bytes": 5}]),
        "ListDirectory": st.just({"under": ["/srv"], "max_entries": 1}),
        "DeleteFile": st.just({"under": ["/srv"]}),
        "WriteFile": st.sampled_from([
            {"under": ["/srv"], "modes": ["create"], "max_bytes": 5, "quota_bytes": 20}, {"under": ["/a"], "hidden": True},
        ]),
        "GetEnvironment": st.just({"names": ["TZ", "x.y"]}),
        "HTTPRequest": st.sampled_from([
            {"hosts": ["a.b"]}, {"hosts": ["a.b:8080", "x.example"], "ports": [443], "max_body_bytes": 7},
            {"hosts": ["127.0.0.1"], "private_hosts": True, "methods": ["POST"]},
        ]),
        "Log": st.just({"level": ["info"]}),
        "Sleep": st.just({"max_seconds": 1}),
        "RandomBytes": st.just({"max_count": 1, "max_calls": 3}),
        "Größe": st.just({"max_länge": 3, "wort": ["x"]}),
    },
)  # fmt: skip


@given(effect=EFFECTS, rules=RULES)
def test_every_line_that_is_offered_loads_and_then_grants(tmp_path_factory, effect, rules):
    policy = Policy(name="test", effects=rules)
    try:
        check(policy, effect)
    except EffectDenied as denied:
        line = denied.suggestion
    else:
        return
    if line:
        check(pasted(tmp_path_factory.getbasetemp(), line, **rules), effect)


def test_effect_denied_in_two_fields_is_offered_one_line_that_lifts_both(tmp_path):
    rules = {"HTTPRequest": {"hosts": ["a.b"]}}
    effect = HTTPRequest(url="http://127.0.0.1:8080/", method="POST")
    line = suggestion_for(effect, **rules)
    assert line == (
        'effects.HTTPRequest = { hosts = ["127.0.0.1:8080", "a.b"], methods = ["GET", "HEAD", "POST"], ports = [], '
        'max_body_bytes = "16 MiB", private_hosts = true }'
    )  # fmt: skip
    check(pasted(tmp_path, line, **rules), effect)


def test_write_denied_in_everything_is_offered_one_line_that_grants_it(tmp_path):
    rules = {"WriteFile": {"under": ["/a"], "modes": ["create"], "max_bytes": 5, "quota_bytes": 5}}
    effect = WriteFile(path="/b/.c/d", content=b"x" * 10, mode="append")
    line = suggestion_for(effect, **rules)
    assert line == (
        'effects.WriteFile = { under = ["/a", "/b/.c"], max_bytes = "10 B", quota_bytes = "10 B", max_files = 1000, '
        'modes = ["append", "create"], create_parents = false, hidden = false }'
    )  # fmt: skip
    check(pasted(tmp_path, line, **rules), effect)
    assert suggestion_for(effect) == 'effects.WriteFile = { under = ["/b/.c"], modes = ["append"] }'


def test_directory_with_a_delete_character_is_offered_as_toml_can_hold_it(tmp_path):
    effect = ReadFile(path="/opt/a\x7fb/x")
    line = suggestion_for(effect)
    assert line == 'effects.ReadFile = { under = ["/opt/a\\u007fb"] }'
    check(pasted(tmp_path, line), effect)


def test_names_that_are_no_bare_keys_are_quoted(tmp_path):
    assert suggestion_for(Größe()) == 'effects."Größe" = true'
    line = suggestion_for(Größe(wort="y"), Größe={"wort": ["x"]})
    assert line == 'effects."Größe".wort = ["x", "y"]'
    check(pasted(tmp_path, suggestion_for(Größe())), Größe())


@pytest.mark.parametrize(
    "effect",
    [FX.Sleep(seconds=float("inf")), FX.RandomBytes(count=-1), FX.ReadFile(path="/x"), FX.ReadFile(path="/a/../b")],
    ids=repr,
)
def test_effect_that_no_rule_grants_is_offered_no_line(effect):
    assert suggestion_for(effect) == ""


def test_effect_over_a_default_maximum_is_offered_the_maximum_it_needs(tmp_path):
    effect = Sleep(seconds=100_000)
    assert suggestion_for(effect) == "effects.Sleep = { max_seconds = 100000.0 }"
    check(pasted(tmp_path, suggestion_for(effect)), effect)
