"""HTTPRule: what is granted, and that no other spelling of it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fxcell.policies.builtin import HTTPRequest
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.rule import Refusal
from fxcell.policies.rules import http_target, is_private_address


def judged(rule: dict, **fields) -> Refusal | None:
    return HTTPRule.from_data("HTTPRequest", rule).judge(HTTPRequest(**fields))


def http(url: str, **rule) -> Refusal | None:
    refusal = judged({"hosts": ["api.example.com"], **rule}, url=url)
    assert refusal is None or refusal.field == "url"
    return refusal


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


@pytest.mark.parametrize(("rule", "url", "granted"), HTTP, ids=lambda v: repr(v)[:70])
def test_http_urls(rule, url, granted):
    assert (http(url, **rule) is None) == granted


def test_url_that_never_can_be_granted_suggests_no_line():
    assert http("https://u@api.example.com").suggestion == ""
    assert (
        http("https://b.example.com").suggestion == 'effects.HTTPRequest.hosts = ["api.example.com", "b.example.com"]'
    )
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
    rule = {"hosts": ["a.example.com"], "max_body_bytes": 100}
    refusal = judged(rule, url="https://a.example.com/", **fields)
    assert (refusal and refusal.field) == field


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


URL = st.tuples(
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "//", ""]),
    st.sampled_from(["", "", "", "u@", "u:p@", "api.example.com@"]),
    st.sampled_from(["api.example.com", "API.example.com", "example.com", "x.y.example.com", "evil.example"])
    | HOST
    | st.text(max_size=12)
    | st.sampled_from("\\/?#@:%.\0\t \u3002").map(lambda c: f"evil.example{c}api.example.com"),
    st.sampled_from(["", "", ":80", ":443", ":8443", ":", ":080", ":65536"]),
    st.sampled_from(["", "/", "/x", "?q", "#f", "\\", "//x", "@x"]) | st.text(max_size=8),
).map("".join)


@given(st.sampled_from(["api.example.com", "*.example.com", "api.example.com:8443", "*.example.com:80"]), URL)
@settings(max_examples=500)
def test_no_url_is_granted_that_the_reference_refuses(entry, url):
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
