"""Rules: what each grants, what each denies, and that nothing spelt otherwise gets through."""

from __future__ import annotations

import tomllib

import pytest

from fxcell.policies.builtin import HTTPRequest, ListWorkerProcesses, Log, Now, Print, RandomBytes, ReadFile, Sleep
from fxcell.policies.effects import FX, Effect
from fxcell.policies.errors import EffectDenied, PolicyError
from fxcell.policies.limits import Limits
from fxcell.policies.policy import Policy
from fxcell.policies.rules import FileRule, HTTPRule, PlainRule, calls_allowed, check


class Measure(Effect):
    """An effect as a user defines it."""

    unit: str
    grams: float = 1.0
    times: int = 1
    exact: bool = False


def policy(**effects) -> Policy:
    return Policy(name="test", effects=effects)


def denied(granted: Policy, effect: Effect) -> EffectDenied:
    with pytest.raises(EffectDenied) as caught:
        check(granted, effect)
    assert caught.value.effect == effect.effect_name
    assert caught.value.policy == "test"
    return caught.value


# --- not granted at all ---


@pytest.mark.parametrize(
    ("effect", "line", "enough"),
    [
        (Print(content="x"), "effects.Print = true", True),
        (Now(), "effects.Now = true", True),
        (HTTPRequest(url="https://a.example.com/x"), 'effects.HTTPRequest = { hosts = ["a.example.com"] }', True),
        (
            HTTPRequest(url="http://a.b:81", method="POST"),
            'effects.HTTPRequest = { hosts = ["a.b:81"], methods = ["POST"] }',
            True,
        ),
        (
            HTTPRequest(url="http://[::1]:8080/"),
            'effects.HTTPRequest = { hosts = ["[::1]:8080"], private_hosts = true }',
            True,
        ),
        (HTTPRequest(url="nonsense"), "", False),
        (ReadFile(path="/srv/data/x"), 'effects.ReadFile = { under = ["/srv/data"] }', True),
        (ReadFile(path="x"), "", False),
        (ReadFile(path="/x"), "", False),
        (ReadFile(path="/proc/self/environ"), "", False),
        (Measure(unit="g"), "effects.Measure = true", True),
    ],
    ids=lambda v: repr(v)[:60],
)
def test_effect_that_is_not_granted_is_denied_with_the_line_that_grants_it(effect, line, enough):
    error = denied(policy(), effect)
    assert error.field is None
    assert error.suggestion == line
    assert bool(line) is enough
    if enough:
        check(Policy(name="test", effects=tomllib.loads(line)["effects"]), effect)
    else:
        assert "no rule grants its fields" in error.rule


def test_effect_on_workers_is_denied_without_a_line():
    error = denied(policy(), ListWorkerProcesses())
    assert error.suggestion == ""
    assert "No policy can grant it" in str(error)


# --- plain rules ---

PLAIN = [
    (True, Print(content=object), True),
    ({"max_seconds": 10}, Sleep(seconds=10), True),
    ({"max_seconds": 10}, Sleep(seconds=10.001), False),
    ({"max_seconds": 10}, Sleep(seconds=-1), False),
    ({"max_seconds": 10}, Sleep(seconds=float("nan")), False),
    ({"max_seconds": 10}, Sleep(seconds=float("inf")), False),
    (True, Sleep(seconds=float("inf")), False),
    (True, Sleep(seconds=86_400), True),
    (True, Sleep(seconds=86_401), False),
    (True, RandomBytes(count=2**20), True),
    (True, RandomBytes(count=2**20 + 1), False),
    (True, RandomBytes(count=10**400), False),
    (True, RandomBytes(count=-1), False),
    ({"max_count": 16}, RandomBytes(count=17), False),
    ({"max_count": 2**30}, RandomBytes(count=2**30), True),
    ({"level": ["info"]}, Log(message="x", level="info"), True),
    ({"level": ["info"]}, Log(message="x", level="Info"), False),
    ({"level": ["info"]}, Log(message="x", level="ınfo"), False),
    ({"level": ["info"]}, Log(message="x", level="info "), False),
    ({"content": [1]}, Print(content=1), True),
    ({"content": [1]}, Print(content=True), False),
    ({"content": [1]}, Print(content=1.0), False),
    ({"content": ["é"]}, Print(content="e\u0301"), False),
    ({"content": [1]}, Print(content=[1]), False),
    ({"grams": [1]}, Measure(unit="g", grams=1.0), True),
    ({"exact": [True]}, Measure(unit="g", exact=True), True),
    ({"exact": [True]}, Measure(unit="g"), False),
    ({"max_times": 3, "unit": ["g", "kg"]}, Measure(unit="kg", times=3), True),
    ({"max_times": 3, "unit": ["g", "kg"]}, Measure(unit="t", times=3), False),
]


@pytest.mark.parametrize(("rule", "effect", "granted"), PLAIN, ids=[f"{r} {e!r:.60}" for r, e, _ in PLAIN])
def test_plain_rule(rule, effect, granted):
    held = policy(**{effect.effect_name: rule})
    if granted:
        check(held, effect)
    else:
        denied(held, effect)


def test_denial_names_field_rule_and_line():
    error = denied(policy(Log={"level": ["info"]}), Log(message="x", level='a"b'))
    assert (error.field, error.suggestion) == ("level", r'effects.Log.level = ["info", "a\"b"]')
    assert error.rule == "'a\"b' is not exactly one of 'info'"
    error = denied(policy(Sleep={"max_seconds": 2}), Sleep(seconds=3))
    assert (error.field, error.suggestion) == ("seconds", "effects.Sleep.max_seconds = 3.0")


# --- rules that cannot be ---

BAD_RULES = [
    ("Print", {"contents": ["x"]}, "no key 'contents'; did you mean 'content'"),
    ("Print", {"max_content": 5}, "no key 'max_content'"),
    ("Print", {"content": []}, "grants nothing"),
    ("Print", {"content": "x"}, "must be a list"),
    ("Print", {"content": [None]}, "may list texts, numbers and booleans"),
    ("Print", {"content": [float("nan")]}, "may list texts"),
    ("Print", {"content": ["a", "a"]}, "twice"),
    ("Print", {"max_calls": 0}, "max_calls must be a whole number from 1"),
    ("Print", {"max_calls": True}, "max_calls must be"),
    ("Print", {"max_calls": 1.5}, "max_calls must be"),
    ("Sleep", {"max_seconds": -1}, "max_seconds must be a finite number"),
    ("Sleep", {"max_seconds": float("nan")}, "max_seconds must be"),
    ("Sleep", {"max_seconds": float("inf")}, "max_seconds must be"),
    ("Sleep", {"max_seconds": True}, "max_seconds must be"),
    ("RandomBytes", {"max_count": 2**64}, r"whole one below 2\*\*63"),
    ("RandomBytes", {"count": [2**64]}, "whole numbers of 64 bits"),
    ("Sleep", {"max_seconds": "10"}, "max_seconds must be"),
    ("Sleep", {"max_second": 10}, "did you mean 'max_seconds'"),
    ("Sleep", {"seconds": ["1"]}, "holds '1', but the field is float"),
    ("RandomBytes", {"max_count": 1.5}, "holds 1.5, but the field is int"),
    ("ReadFile", {}, "needs 'under'"),
    ("ReadFile", {"under": []}, "grants no file"),
    ("ReadFile", {"under": ["/"]}, "can never be granted"),
    ("ReadFile", {"under": ["/proc"]}, "can never be granted"),
    ("ReadFile", {"under": ["data"]}, "not an absolute path"),
    ("ReadFile", {"under": ["/a/../b"]}, r"'\.' or '\.\.'"),
    ("ReadFile", {"under": ["/a"], "max_bytes": -1}, "max_bytes must be a size"),
    ("ReadFile", {"under": ["/a"], "max_bytes": "5"}, "not a number and a unit"),
    ("ReadFile", {"under": ["/a"], "max_bytes": True}, "max_bytes must be a size"),
    ("ReadFile", {"under": ["/a"], "size": 1}, "no key 'size'"),
    ("HTTPRequest", {"hosts": []}, "grants no request"),
    ("HTTPRequest", {"hosts": "a.b"}, "hosts must be a list"),
    ("HTTPRequest", {"hosts": ["A.b"]}, "lower-case"),
    ("HTTPRequest", {"hosts": ["https://a.b"]}, "without scheme and path"),
    ("HTTPRequest", {"hosts": ["a.b/x"]}, "without scheme and path"),
    ("HTTPRequest", {"hosts": ["a.b."]}, "not a host name"),
    ("HTTPRequest", {"hosts": ["bücher.example"]}, "punycode"),
    ("HTTPRequest", {"hosts": ["a.*.b"]}, "may only stand alone"),
    ("HTTPRequest", {"hosts": ["*b.example"]}, "may only stand alone"),
    ("HTTPRequest", {"hosts": ["*.127.0.0.1"]}, "no hosts below an address"),
    ("HTTPRequest", {"hosts": ["127.1"]}, "usual spelling"),
    ("HTTPRequest", {"hosts": ["a.b:0"]}, "not a port"),
    ("HTTPRequest", {"hosts": ["u@a.b"]}, "not a host name"),
    ("HTTPRequest", {"hosts": ["a.b", "a.b"]}, "twice"),
    ("HTTPRequest", {"hosts": ["127.0.0.1"]}, "add private_hosts = true"),
    ("HTTPRequest", {"hosts": ["a.b", "localhost:80"]}, "add private_hosts = true"),
    ("HTTPRequest", {"hosts": ["[::1]"]}, "add private_hosts = true"),
    ("HTTPRequest", {"hosts": ["*.localhost"]}, "add private_hosts = true"),
    ("HTTPRequest", {"hosts": ["8.8.8.8"], "private_hosts": True}, "private_hosts = true is without effect"),
    ("HTTPRequest", {"hosts": ["a.b:80"], "ports": [80]}, "ports is without effect"),
    ("HTTPRequest", {"hosts": ["a.b"], "ports": [0]}, "ports must be"),
    ("HTTPRequest", {"hosts": ["a.b"], "ports": [True]}, "ports must be"),
    ("HTTPRequest", {"hosts": ["a.b"], "ports": [80, 80]}, "twice"),
    ("HTTPRequest", {"hosts": ["a.b"], "methods": ["get"]}, "in capitals"),
    ("HTTPRequest", {"hosts": ["a.b"], "methods": []}, "grants no request"),
    ("HTTPRequest", {"hosts": ["a.b"], "methods": ["CONNECT"]}, "can never be granted"),
    ("HTTPRequest", {"hosts": ["a.b"], "private_hosts": 1}, "must be true or false"),
    ("HTTPRequest", {"hosts": ["a.b"], "max_body_bytes": 1.0}, "must be a size"),
]


@pytest.mark.parametrize(("effect", "rule", "message"), BAD_RULES, ids=[f"{e} {r}" for e, r, _ in BAD_RULES])
def test_rule_that_cannot_be_is_a_policy_error_at_its_key(effect, rule, message):
    with pytest.raises(PolicyError, match=message) as caught:
        policy(**{effect: rule})
    assert caught.value.at[:2] == ("effects", effect)


def test_rule_objects_and_tables_are_the_same():
    rules = {
        "HTTPRequest": HTTPRule(hosts=["b.c", "a.b"], max_calls=3),
        "ReadFile": FileRule(under=["/srv"]),
        "Sleep": PlainRule(maxima={"seconds": 3}),
        "Log": PlainRule(allowed={"level": ["info"]}),
    }
    tables = {
        "HTTPRequest": {"hosts": ["a.b", "b.c"], "max_calls": 3},
        "ReadFile": {"under": ["/srv"], "max_bytes": "16 MiB"},
        "Sleep": {"max_seconds": 3},
        "Log": {"level": ["info"]},
    }
    assert policy(**rules) == policy(**tables)


@pytest.mark.parametrize("times", [10**100, 10**5000, -(10**5000), 10**20000], ids=["100", "5000", "minus", "20000"])
@pytest.mark.parametrize("rule", [{"times": [1, 2]}, {"max_times": 5}, None], ids=["list", "maximum", "not granted"])
def test_whole_number_of_any_size_is_denied_in_a_short_text_without_a_line_that_holds_it(rule, times):
    refusal = denied(policy(Measure=rule) if rule else policy(), Measure(unit="kg", times=times))
    assert len(str(refusal)) < 400
    assert "0000000" not in refusal.suggestion


def test_calls_allowed_is_the_smaller_of_rule_and_limit():
    held = Policy(limits=Limits(effects=10), effects={"Print": True, "Log": {"max_calls": 3}, "Now": {"max_calls": 30}})
    assert [calls_allowed(held, name) for name in ("Print", "Log", "Now", "Sleep")] == [10, 3, 10, 0]


def test_check_does_not_change_the_effect():
    effect = HTTPRequest(url="https://API.example.com/", headers={"A": "b"})
    before = FX.from_bytes(effect.to_bytes())
    check(policy(HTTPRequest={"hosts": ["api.example.com"]}), effect)
    assert effect == before
