"""Redirects of HTTPRequest: each step is judged as if the plugin had asked for it."""

import pytest

from fxcell.host.effects import addresses, http
from fxcell.host.effects.http import HTTPClient
from fxcell.policies.errors import EffectDenied
from tests.host.web import OK, Resolver, answer, ask, kind_of, policy, redirect, serve

__all__ = ["serve"]


def test_redirect_within_the_rule_is_followed_and_the_last_url_reported(serve):
    def say(connection, request):
        connection.sendall(OK if request["target"] == "/b" else redirect("/b"))

    server = serve(say)
    result = ask(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/a")
    assert (result["status"], result["url"]) == (200, f"http://127.0.0.1:{server.port}/b")


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "//other.example/",
        "http://localhost/",
        "http://api.example:1/",
        "http://[::1]/",
    ],
)
def test_redirect_out_of_the_rule_is_denied(location, private, monkeypatch, serve):
    monkeypatch.setattr(addresses, "why_refused", lambda _address: None)  # so that the first request gets through
    server = serve(redirect(location))
    with pytest.raises(EffectDenied) as denied:
        ask(policy(f"api.example:{server.port}", private=private), f"http://api.example:{server.port}/")
    assert denied.value.field == "url"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a.example/", "http://u:p@api.example/", "http://[", "\\\\x"]
)
def test_redirect_to_what_is_no_plain_http_url_is_bad_request(location, serve):
    server = serve(redirect(location))
    assert kind_of(policy("*", f"api.example:{server.port}"), f"http://api.example:{server.port}/") == "bad_request"


def test_redirect_to_a_name_with_a_private_address_is_refused(serve):
    server = serve(redirect("http://inner.example/"))
    resolver = Resolver(["8.8.8.8"], ["10.0.0.1"])
    granted = policy(f"api.example:{server.port}", "inner.example", private=False)
    # The first name is public to the judge, but is answered by the local server.
    with pytest.MonkeyPatch.context() as patch:
        connect = http.PinnedBackend

        def local_first(found, *rest):
            return connect(["127.0.0.1"] if found == ["8.8.8.8"] else found, *rest)

        patch.setattr(http, "PinnedBackend", local_first)
        assert kind_of(granted, f"http://api.example:{server.port}/", client=HTTPClient(resolver)) == "refused_address"
    assert [host for host, _ in resolver.asked] == ["api.example", "inner.example"]


def test_redirect_loop_ends_after_five(serve):
    server = serve(redirect("/again"))
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/") == "too_many_redirects"
    assert len(server.requests) == 1 + http.MAX_REDIRECTS


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        ("301 Moved", "POST", "GET"),
        ("302 Found", "POST", "GET"),
        ("303 See Other", "PUT", "GET"),
        ("303 See Other", "HEAD", "HEAD"),
        ("302 Found", "PUT", "PUT"),
        ("307 Temporary", "POST", "POST"),
        ("308 Permanent", "POST", "POST"),
    ],
)
def test_redirect_changes_the_method_as_rfc_9110_says(status, method, then, serve):
    def say(connection, request):
        connection.sendall(redirect("/then", status) if request["target"] == "/" else answer("204 No Content"))

    server = serve(say)
    granted = policy(f"127.0.0.1:{server.port}", methods=["GET", "HEAD", "POST", "PUT"])
    headers = {"Content-Type": "text/plain", "X-Mine": "1"}
    ask(granted, f"http://127.0.0.1:{server.port}/", method=method, body=b"data", headers=headers)
    second = server.requests[1]
    assert second["method"] == then
    assert second["headers"]["x-mine"] == "1"
    kept = then == method
    assert second["body"] == (b"data" if kept else b"")
    assert ("content-type" in second["headers"]) is kept


def test_redirect_to_a_method_outside_the_rule_is_denied(serve):
    server = serve(redirect("/then", "303 See Other"))
    with pytest.raises(EffectDenied) as denied:
        ask(policy(f"127.0.0.1:{server.port}", methods=["POST"]), f"http://127.0.0.1:{server.port}/", method="POST")
    assert denied.value.field == "method"


def test_credentials_stay_within_their_origin(serve):
    other = serve()

    def say(connection, request):
        connection.sendall(redirect(f"http://127.0.0.1:{other.port}/" if request["target"] == "/same" else "/same"))

    server = serve(say)
    granted = policy(f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}")
    ask(granted, f"http://127.0.0.1:{server.port}/", headers={"AUTHORIZATION": "a", "Cookie": "b", "X-Mine": "c"})
    assert server.requests[1]["headers"].keys() >= {"authorization", "cookie", "x-mine"}
    assert not other.requests[0]["headers"].keys() & {"authorization", "cookie"}
    assert other.requests[0]["headers"]["x-mine"] == "c"


def test_cookies_of_an_answer_are_not_kept(serve):
    def say(connection, request):
        connection.sendall(OK if request["target"] == "/b" else answer("302 Found", "Location: /b", "Set-Cookie: a=b"))

    server = serve(say)
    ask(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/")
    assert "cookie" not in server.requests[1]["headers"]
