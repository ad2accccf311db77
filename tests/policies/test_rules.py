"""Rules: what each grants, what each denies, and that nothing spelt otherwise gets through."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fxcell.policies.builtin import HTTPRequest, ListWorkerProcesses, Log, Now, Print, RandomBytes, ReadFile, Sleep
from fxcell.policies.effects import FX, Effect
from fxcell.policies.errors import EffectDenied, PolicyError
from fxcell.policies.limits import Limits
from fxcell.policies.policy import Policy
from fxcell.policies.rules import (
    FileRule,
    HTTPRule,
    PlainRule,
    calls_allowed,
    check,
    granted_root,
    http_target,
    is_private_address,
)


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


def http(url: str, **rule) -> EffectDenied | None:
    try:
        check(policy(HTTPRequest={"hosts": ["api.example.com"], **rule}), HTTPRequest(url=url))
    except EffectDenied as error:
        assert error.field == "url"
        return error
    return None


# --- not granted at all ---


@pytest.mark.parametrize(
    ("effect", "line"),
    [
        (Print(content="x"), "effects.Print = true"),
        (Now(), "effects.Now = true"),
        (HTTPRequest(url="https://a.example.com/x"), 'effects.HTTPRequest = { hosts = ["a.example.com"] }'),
        (HTTPRequest(url="http://a.b:81", method="POST"), 'effects.HTTPRequest = { hosts = ["a.b:81"], methods = ["POST"] }'),
        (
            HTTPRequest(url="http://[::1]:8080/"),
            'effects.HTTPRequest = { hosts = ["[::1]:8080"], private_hosts = true }',
        ),
        (HTTPRequest(url="nonsense"), 'effects.HTTPRequest = { hosts = ["api.example.com"] }'),
        (ReadFile(path="/srv/data/x"), 'effects.ReadFile = { under = ["/srv/data"] }'),
        (ReadFile(path="x"), 'effects.ReadFile = { under = ["/srv/data"] }'),
        (ReadFile(path="/x"), 'effects.ReadFile = { under = ["/srv/data"] }'),
        (Measure(unit="g"), "effects.Measure = true"),
    ],
    ids=repr,
)
def test_effect_that_is_not_granted_is_denied_with_the_line_that_grants_it(effect, line):
    error = denied(policy(), effect)
    assert error.field is None
    assert error.suggestion == line
    granting = Policy(name="test", effects=tomllib.loads(line)["effects"])
    if line.split(" = ")[0] and "api.example.com" not in line and "/srv/data" not in line:
        check(granting, effect)


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


# --- HTTP ---

HTTP = [
    # (hosts and more, url, granted)
    ({}, "https://api.example.com", True),
    ({}, "https://api.example.com/", True),
    ({}, "https://API.Example.COM/x?y=z#frag", True),
    ({}, "http://api.example.com:80/", True),
    ({}, "https://api.example.com:443/", True),
    ({}, "https://api.example.com?x=http://evil.example", True),
    ({}, "http://api.example.com:443/", False),
    ({}, "https://api.example.com:80/", False),
    ({}, "https://api.example.com:8443/", False),
    ({"ports": [8443]}, "https://api.example.com:8443/", True),
    ({"ports": [8443]}, "https://api.example.com/", False),
    ({}, "https://example.com/", False),
    ({}, "https://x.api.example.com/", False),
    ({}, "https://api.example.com.evil.example/", False),
    ({}, "https://evilapi.example.com/", False),
    ({}, "https://api.example.com./", False),
    ({}, "https://api.example.com:/", False),
    ({}, "https://api.example.com:0443/", False),
    ({}, "https://api.example.com:+443/", False),
    ({}, "https://api.example.com:443 /", False),
    ({}, "https://api.example.com:99999/", False),
    ({}, "https://api.example.com:４４３/", False),
    ({}, "https://user@api.example.com/", False),
    ({}, "https://user:pw@api.example.com/", False),
    ({}, "https://api.example.com@evil.example/", False),
    ({}, "https://api.example.com:443@evil.example/", False),
    ({}, "https://evil.example#@api.example.com/", False),
    ({}, "https://evil.example?@api.example.com/", False),
    ({}, "https://evil.example\\@api.example.com/", False),
    ({}, "https://evil.example/\\api.example.com", False),
    ({}, "https:\\\\api.example.com/", False),
    ({}, "https:/api.example.com/", False),
    ({}, "https:api.example.com/", False),
    ({}, "https:///api.example.com/", False),
    ({}, "//api.example.com/", False),
    ({}, "api.example.com", False),
    ({}, "HTTPS://api.example.com/", False),
    ({}, "ftp://api.example.com/", False),
    ({}, "file:///etc/passwd", False),
    ({}, "unix:///run/x", False),
    ({}, "ws://api.example.com/", False),
    ({}, " https://api.example.com/", False),
    ({}, "https://api.example.com/ ", False),
    ({}, "https://api.example.com/a b", False),
    ({}, "https://api.example.com/\r\nX: y", False),
    ({}, "https://api.example.com/\n", False),
    ({}, "https://api.exam\tple.com/", False),
    ({}, "https://api.example.com\0/", False),
    ({}, "https://api.example.com\0.evil.example/", False),
    ({}, "https://api\u3002example\u3002com/", False),
    ({}, "https://api.ехample.com/", False),
    ({}, "https://ａpi.example.com/", False),
    ({}, "https://api.example.com/é", False),
    ({}, "https://%61pi.example.com/", False),
    ({}, "https://api.example.com%2eevil.example/", False),
    ({}, "https://api.example.com;x/", False),
    ({}, "https://[api.example.com]/", False),
    ({}, "https://-api.example.com/", False),
    ({}, "https://api..example.com/", False),
    ({}, "", False),
    ({}, "https://api.example.com/" + "a" * 8192, False),
    ({"hosts": ["*.example.com"]}, "https://a.example.com/", True),
    ({"hosts": ["*.example.com"]}, "https://a.b.example.com/", True),
    ({"hosts": ["*.example.com"]}, "https://example.com/", False),
    ({"hosts": ["*.example.com"]}, "https://.example.com/", False),
    ({"hosts": ["*.example.com"]}, "https://aexample.com/", False),
    ({"hosts": ["*.example.com"]}, "https://a.example.com.evil.example/", False),
    ({"hosts": ["*.example.com"]}, "https://*.example.com/", False),
    ({"hosts": ["*"]}, "https://anything.example/", True),
    ({"hosts": ["*"]}, "https://93.184.216.34/", True),
    ({"hosts": ["*"]}, "https://anything.example:8080/", False),
    ({"hosts": ["*:8080"]}, "https://anything.example:8080/", True),
    ({"hosts": ["*"]}, "http://127.0.0.1/", False),
    ({"hosts": ["*"]}, "http://[::1]/", False),
    ({"hosts": ["*"]}, "http://10.0.0.1/", False),
    ({"hosts": ["*"]}, "http://169.254.169.254/latest/meta-data", False),
    ({"hosts": ["*"]}, "http://localhost/", False),
    ({"hosts": ["*"]}, "http://LOCALHOST/", False),
    ({"hosts": ["*"]}, "http://x.localhost/", False),
    ({"hosts": ["*"]}, "http://metadata.google.internal/", False),
    ({"hosts": ["*"]}, "http://intranet/", False),
    ({"hosts": ["*"]}, "http://0.0.0.0/", False),
    ({"hosts": ["*"]}, "http://[::ffff:127.0.0.1]/", False),
    ({"hosts": ["*"]}, "http://[64:ff9b::7f00:1]/", False),
    ({"hosts": ["*"]}, "http://[fd00::1]/", False),
    ({"hosts": ["*"], "private_hosts": True}, "http://127.0.0.1/", True),
    ({"hosts": ["*"], "private_hosts": True}, "http://intranet/", True),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://127.0.0.1:8080/", True),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://127.0.0.1/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://127.1:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://127.000.000.001:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://0177.0.0.1:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://0x7f.0.0.1:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://0x7f000001:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://2130706433:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://127.0.0.1.:8080/", False),
    ({"hosts": ["127.0.0.1:8080"], "private_hosts": True}, "http://127.0.0.2:8080/", False),
    ({"hosts": ["[::1]:8080"], "private_hosts": True}, "http://[::1]:8080/", True),
    ({"hosts": ["[::1]:8080"], "private_hosts": True}, "http://[0:0:0:0:0:0:0:1]:8080/", False),
    ({"hosts": ["[::1]:8080"], "private_hosts": True}, "http://[::1%25lo]:8080/", False),
    ({"hosts": ["[::1]:8080"], "private_hosts": True}, "http://::1:8080/", False),
    ({"hosts": ["localhost"], "private_hosts": True}, "http://localhost/", True),
    ({"hosts": ["localhost"], "private_hosts": True}, "http://127.0.0.1/", False),
    ({"hosts": ["a.example.com:8443", "a.example.com"]}, "https://a.example.com:8443/", True),
    ({"hosts": ["a.example.com:8443", "a.example.com"]}, "https://a.example.com/", True),
    ({"hosts": ["a.example.com:8443", "b.example.com"]}, "https://a.example.com/", False),
    ({"hosts": ["xn--bcher-kva.example"]}, "https://xn--bcher-kva.example/", True),
    ({"hosts": ["xn--bcher-kva.example"]}, "https://bücher.example/", False),
]


@pytest.mark.parametrize(
    ("rule", "url", "granted"), HTTP, ids=lambda v: repr(v)[:70]
)
def test_http_urls(rule, url, granted):
    assert (http(url, **rule) is None) == granted


def test_url_that_never_can_be_granted_suggests_no_line():
    assert http("https://u@api.example.com").suggestion == ""
    assert http("https://b.example.com").suggestion == 'effects.HTTPRequest.hosts = ["api.example.com", "b.example.com"]'
    assert http("https://api.example.com:81").suggestion.endswith('["api.example.com", "api.example.com:81"]')
    assert http("http://10.0.0.1/", hosts=["*"]).suggestion == "effects.HTTPRequest.private_hosts = true"


REQUEST = [
    ({"method": "HEAD"}, None),
    ({"method": "POST"}, "method"),
    ({"method": "get"}, "method"),
    ({"method": "GET "}, "method"),
    ({"method": "GET\r\nX: y"}, "method"),
    ({"method": ""}, "method"),
    ({"method": "CONNECT"}, "method"),
    ({"headers": {"Accept": "text/html", "X-Ünicode": "x"}}, "headers"),
    ({"headers": {"Accept": "text/html"}}, None),
    ({"headers": {"Authorization": "Bearer a.b-c=="}}, None),
    ({"headers": {"X": "a\r\nHost: evil"}}, "headers"),
    ({"headers": {"X": "a\nb"}}, "headers"),
    ({"headers": {"X": "a\0"}}, "headers"),
    ({"headers": {"X": "é"}}, "headers"),
    ({"headers": {"X\n": "a"}}, "headers"),
    ({"headers": {"X:Y": "a"}}, "headers"),
    ({"headers": {"": "a"}}, "headers"),
    ({"headers": {"Host": "evil.example"}}, "headers"),
    ({"headers": {"hOsT": "evil.example"}}, "headers"),
    ({"headers": {"Content-Length": "0"}}, "headers"),
    ({"headers": {"Transfer-Encoding": "chunked"}}, "headers"),
    ({"headers": {"Connection": "upgrade"}}, "headers"),
    ({"headers": {"Proxy-Authorization": "x"}}, "headers"),
    ({"headers": {f"X-{i}": "" for i in range(101)}}, "headers"),
    ({"body": b"x" * 100}, None),
    ({"body": b"x" * 101}, "body"),
    ({"timeout_s": 0.0}, "timeout_s"),
    ({"timeout_s": -1.0}, "timeout_s"),
    ({"timeout_s": float("nan")}, "timeout_s"),
    ({"timeout_s": float("inf")}, "timeout_s"),
]


@pytest.mark.parametrize(("fields", "field"), REQUEST, ids=lambda v: repr(v)[:60])
def test_http_fields(fields, field):
    held = policy(HTTPRequest={"hosts": ["a.example.com"], "max_body_bytes": 100})
    effect = HTTPRequest(url="https://a.example.com/", **fields)
    if field is None:
        check(held, effect)
    else:
        assert denied(held, effect).field == field


def test_target_is_what_the_url_names():
    assert http_target("https://A.example.com?x=1#y") == ("https", "a.example.com", 443, "/?x=1")
    assert http_target("http://[2001:DB8::1]:81/p#") == ("http", "2001:db8::1", 81, "/p")


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("url", [None, 5, b"https://a.b", Text("https://a.b")], ids=lambda v: type(v).__name__)
def test_target_of_another_type_is_an_error(url):
    with pytest.raises(ValueError, match="plain str"):
        http_target(url)


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("93.184.216.34", False), ("8.8.8.8", False), ("2606:2800:220:1::1", False), ("64:ff9b::808:808", False),
        ("2002:808:808::1", False), ("::ffff:8.8.8.8", False),
        ("127.0.0.1", True), ("127.255.0.1", True), ("10.1.2.3", True), ("172.16.0.1", True), ("192.168.1.1", True),
        ("100.64.0.1", True), ("169.254.169.254", True), ("0.0.0.0", True), ("255.255.255.255", True), ("224.0.0.1", True),
        ("198.18.0.1", True), ("240.0.0.1", True), ("::1", True), ("::", True), ("fe80::1", True), ("fc00::1", True),
        ("fec0::1", True), ("ff02::1", True), ("2001:db8::1", True), ("::ffff:127.0.0.1", True), ("::127.0.0.1", True),
        ("64:ff9b::a00:1", True), ("64:ff9b:1::1", True), ("2002:7f00:1::", True), ("2001::1", True), ("100::1", True),
    ],
)  # fmt: skip
def test_private_addresses(address, private):
    assert is_private_address(address) is private


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join).filter(lambda h: not re.search(r"(^|\.)(\d+|0x\w*)$", h))


def reference_grants(entry: str, url: str) -> bool:
    """The rule of the manual as a regular expression: nothing is parsed, so nothing can be parsed differently."""
    host, _, port = entry.partition(":")
    wanted = r"(?:[a-z0-9_-]+\.)+" + re.escape(host[2:]) if host.startswith("*.") else re.escape(host)
    ends = r"(?:[/?#][!-\[\]-~]*)?"
    if port:
        schemes = [f"https?://{wanted}:{port}"]
        schemes += [f"http://{wanted}"] * (port == "80") + [f"https://{wanted}"] * (port == "443")
    else:
        schemes = [f"http://{wanted}(?::80)?", f"https://{wanted}(?::443)?"]
    lowered = re.sub(r"^(https?://[^/?#]*)", lambda m: m[0].lower() if m[0].isascii() else m[0], url)
    same_scheme = url.startswith(("http://", "https://"))
    return same_scheme and any(re.fullmatch(scheme + ends, lowered) for scheme in schemes)


@given(
    entry=st.sampled_from(["api.example.com", "*.example.com", "api.example.com:8443", "*.example.com:80"]),
    scheme=st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "//", ""]),
    user=st.sampled_from(["", "", "", "u@", "u:p@", "api.example.com@"]),
    host=st.sampled_from(["api.example.com", "API.example.com", "example.com", "x.y.example.com", "evil.example"])
    | HOST
    | st.text(max_size=12)
    | st.sampled_from("\\/?#@:%.\0\t \u3002").map(lambda c: f"evil.example{c}api.example.com"),
    port=st.sampled_from(["", "", ":80", ":443", ":8443", ":", ":080", ":65536"]),
    rest=st.sampled_from(["", "/", "/x", "?q", "#f", "\\", "//x", "@x"]) | st.text(max_size=8),
)
def test_no_url_is_granted_that_the_reference_refuses(entry, scheme, user, host, port, rest):
    url = f"{scheme}{user}{host}{port}{rest}"
    granted = http(url, hosts=[entry]) is None
    if granted:
        assert reference_grants(entry, url)
    # The other way round only where the reference's idea of a label is the rule's: no '-' at its ends.
    elif reference_grants(entry, url):
        assert re.search(r"[.-]-|-[.:/?#]|//-|-$", url.lower()), url


@given(st.text(max_size=40))
@example("https://[")
@example("https://[]")
@example("https://]")
@example("http://:80")
def test_any_text_as_url_is_granted_or_denied_and_nothing_else(url):
    assert http(url) is not None or url.lower().startswith(("http://api.example.com", "https://api.example.com"))


# --- files ---

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
    import posixpath

    path = "/" + "/".join(parts)
    try:
        check(policy(ReadFile={"under": ["/srv/data"]}), ReadFile(path=path))
    except EffectDenied:
        return
    assert posixpath.normpath(path) == path
    assert path.startswith("/srv/data/")


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


def test_calls_allowed_is_the_smaller_of_rule_and_limit():
    held = Policy(limits=Limits(effects=10), effects={"Print": True, "Log": {"max_calls": 3}, "Now": {"max_calls": 30}})
    assert [calls_allowed(held, name) for name in ("Print", "Log", "Now", "Sleep")] == [10, 3, 10, 0]


def test_check_does_not_change_the_effect():
    effect = HTTPRequest(url="https://API.example.com/", headers={"A": "b"})
    before = FX.from_bytes(effect.to_bytes())
    check(policy(HTTPRequest={"hosts": ["api.example.com"]}), effect)
    assert effect == before
