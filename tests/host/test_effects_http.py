"""HTTPRequest against real servers on 127.0.0.1: what is reached, what is sent, where redirects may lead."""

import contextlib
import socket
import threading
import time

import pytest

from fxcell.host.effects.http import HTTPClient
from fxcell.policies.errors import EffectDenied
from tests.host.web import Resolver, answer, ask, ask_locally, kind_of, local_kind_of, policy, serve

__all__ = ["serve"]


def test_granted_host_is_asked_and_its_answer_reported(serve):
    server = serve(answer("201 Created", "X-Word: one", "x-word: two", "Content-Type: text/plain", body=b"hello"))
    url = f"http://127.0.0.1:{server.port}/path?q=1"
    result = ask(policy(f"127.0.0.1:{server.port}"), url, headers={"X-Mine": "yes"})
    assert result == {
        "status": 201,
        "headers": {"content-length": "5", "x-word": "one, two", "content-type": "text/plain"},
        "body": b"hello",
        "url": url,
    }
    (request,) = server.requests
    assert (request["method"], request["target"]) == ("GET", "/path?q=1")
    assert request["headers"] == {
        "host": f"127.0.0.1:{server.port}",
        "connection": "close",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "user-agent": "fxcell",
        "x-mine": "yes",
    }


def test_name_is_sent_as_host_while_the_resolved_address_is_connected(serve):
    server = serve()
    resolver = Resolver()
    granted = policy(f"api.example:{server.port}")
    assert ask(granted, f"http://api.example:{server.port}/", client=HTTPClient(resolver))["body"] == b"ok"
    assert server.requests[0]["headers"]["host"] == f"api.example:{server.port}"
    assert resolver.asked == [("api.example", server.port)]


def test_second_address_is_used_when_the_first_refuses(serve):
    server = serve()
    client = HTTPClient(Resolver(["127.0.0.2", "127.0.0.1"]))
    assert (
        ask(policy(f"api.example:{server.port}"), f"http://api.example:{server.port}/", client=client)["status"] == 200
    )


def test_body_is_sent_with_its_length(serve):
    server = serve()
    body = bytes(range(256)) * 200
    ask(
        policy(f"127.0.0.1:{server.port}", methods=["POST"]),
        f"http://127.0.0.1:{server.port}",
        method="POST",
        body=body,
    )
    assert server.requests[0]["body"] == body
    assert server.requests[0]["headers"]["content-length"] == str(len(body))


def test_head_has_headers_and_no_body(serve):
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nContent-Encoding: gzip\r\n\r\n")
    result = ask(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/", method="HEAD")
    assert (result["headers"]["content-length"], result["body"]) == ("999", b"")


def test_local_request_needs_no_rule(serve):
    server = serve()
    assert ask_locally(f"http://127.0.0.1:{server.port}/")["body"] == b"ok"


def test_proxy_variables_of_the_environment_are_ignored(serve, monkeypatch):
    proxy, server = serve(), serve()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    ask(policy(f"api.example:{server.port}"), f"http://api.example:{server.port}/")
    assert len(server.requests) == 1
    assert not proxy.requests


def test_host_outside_the_rule_is_denied_and_not_looked_up():
    resolver = Resolver()
    with pytest.raises(EffectDenied):
        ask(policy("api.example"), "http://other.example/", client=HTTPClient(resolver))
    assert not resolver.asked


def test_method_outside_the_rule_is_denied(serve):
    server = serve()
    with pytest.raises(EffectDenied) as denied:
        ask(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/", method="DELETE")
    assert denied.value.field == "method"
    assert not server.requests


def test_name_that_resolves_to_loopback_is_refused_without_private_hosts(serve):
    server = serve()
    granted = policy(f"api.example:{server.port}", private=False)
    assert kind_of(granted, f"http://api.example:{server.port}/") == "refused_address"
    assert not server.requests


@pytest.mark.parametrize("order", [["93.184.215.14", "10.0.0.1"], ["10.0.0.1", "93.184.215.14"]])
def test_one_private_address_among_public_ones_refuses_the_name(order):
    assert (
        kind_of(policy("api.example", private=False), "http://api.example/", client=HTTPClient(Resolver(order)))
        == "refused_address"
    )


def test_name_that_resolves_differently_the_second_time_is_asked_once(serve):
    server = serve()
    rebinding = Resolver(["127.0.0.1"], ["127.0.0.9"])
    ask(policy(f"api.example:{server.port}"), f"http://api.example:{server.port}/", client=HTTPClient(rebinding))
    assert rebinding.asked == [("api.example", server.port)]
    assert len(server.requests) == 1


def test_name_without_address_is_name_not_found():
    def nothing(_host, _port):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    for resolver in (nothing, Resolver([])):
        assert kind_of(policy("api.example"), "http://api.example/", client=HTTPClient(resolver)) == "name_not_found"


def test_lookup_that_never_ends_is_a_timeout():
    release = threading.Event()

    def hang(_host, _port):
        release.wait()
        return ["127.0.0.1"]

    try:
        started = time.monotonic()
        assert (
            kind_of(policy("api.example"), "http://api.example/", client=HTTPClient(hang), timeout_s=0.1) == "timeout"
        )
        assert time.monotonic() - started < 10
    finally:
        release.set()


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nHost: evil"}, {"X": "a\nb"}, {"X": "a\rb"}, {"X": "a\0b"}, {"X\r\nY": "a"}, {"X:": "a"}, {"": "a"},
        {"X Y": "a"}, {"Host": "evil"}, {"HOST": "evil"}, {"Content-Length": "5"}, {"transfer-encoding": "chunked"},
        {"Connection": "upgrade"}, {"Upgrade": "h2c"}, {"TE": "trailers"}, {"Trailer": "x"}, {"Keep-Alive": "1"},
        {"Expect": "100-continue"}, {"Proxy-Authorization": "x"}, {"proxy-anything": "x"}, {"X": "snow \u2603"},
        {"X": "\ud800"}, {"A": "1", "a": "2"}, {"X": "v" * 70_000}, {f"X{n}": "" for n in range(300)}, {"X": " a"},
    ],
    ids=lambda headers: None,
)  # fmt: skip
@pytest.mark.parametrize("by", ["rules", "handler"])
def test_header_that_is_the_hosts_business_is_never_sent(headers, by, serve):
    server = serve()
    url = f"http://127.0.0.1:{server.port}/"
    if by == "rules":
        with contextlib.suppress(EffectDenied):
            assert kind_of(policy(f"127.0.0.1:{server.port}"), url, headers=headers) == "bad_request"
    else:
        assert local_kind_of(url, headers=headers) == "bad_request"
    assert not server.requests


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "GET / HTTP/1.1\r\nX:", ""])
def test_method_that_is_none_is_bad_request(method):
    assert local_kind_of("http://127.0.0.1:1/", method=method) == "bad_request"


@pytest.mark.parametrize(
    "url", ["", "file:///etc/passwd", "http://a b/", "http://u@h.example/", "http://127.1/", "http://h/\r\nX: y"]
)
def test_url_that_is_none_is_bad_request(url):
    assert local_kind_of(url) == "bad_request"
