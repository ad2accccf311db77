"""Secrets of a rule: put into the request by the host, for its first origin alone, and seen nowhere else."""

from __future__ import annotations

import logging
import os
import pickle

import pytest

from fxcell import FX, Policy, WorkerCrash, run, zef_function
from fxcell.host import registry, secrets
from fxcell.host.effects.http import HTTPClient
from fxcell.host.recording import recording
from fxcell.policies.errors import EffectDenied, EffectFailed, PolicyError
from fxcell.policies.loader import load_policy
from fxcell.policies.toml_text import to_toml
from tests.host.web import OK, answer, ask, policy, redirect, serve

__all__ = ["serve"]

SECRET = "s3cret-Token/93=f!x"
BEARER = {"Authorization": "Bearer env:FXCELL_TEST_TOKEN"}


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("FXCELL_TEST_TOKEN", SECRET)


def echo(connection, request):
    """Say back all that came: in the status line, a header, a cookie and the body."""
    said = request["headers"].get("authorization", "nothing")
    connection.sendall(answer("200 OK", f"X-Echo: {said}", f"Set-Cookie: t={said}; a=1", body=f"<{said}>".encode() * 3))


def to(server, path="/"):
    return f"http://127.0.0.1:{server.port}{path}"


def granted(*servers, **rule):
    """The first server is sent the secret."""
    hosts = [f"127.0.0.1:{server.port}" for server in servers]
    told = {"secret_hosts": hosts[:1]} if rule.get("secrets", BEARER) else {}
    return policy(*hosts, **{"secrets": BEARER, **told, **rule})


def test_secret_is_sent_in_the_named_header_and_cut_out_of_the_answer(serve):
    server = serve(echo)
    result = ask(granted(server), to(server))
    assert server.requests[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert result["body"] == b"<Bearer [secret]>" * 3
    assert (result["headers"]["x-echo"], result["headers"]["set-cookie"]) == ("Bearer [secret]", "t=Bearer [secret]; a=1")
    assert SECRET not in repr(result)


def test_control_without_the_rule_nothing_is_sent_or_cut_out(serve):
    server = serve(echo)
    assert ask(granted(server, secrets={}), to(server))["body"] == b"<nothing>" * 3
    echoed = ask(granted(server, secrets={}), to(server), headers={"authorization": SECRET})
    assert echoed["headers"]["x-echo"] == SECRET


def test_secret_from_a_file_and_from_the_host(serve, tmp_path):
    (tmp_path / "key").write_text(f"{SECRET}-file\nanother line\n")
    secrets.provide("weather", lambda: f"{SECRET}-host")
    server = serve()
    ask(granted(server, secrets={"X-File": f"file:{tmp_path}/key", "X-Host": "Key host:weather"}), to(server))
    sent = server.requests[0]["headers"]
    assert (sent["x-file"], sent["x-host"]) == (f"{SECRET}-file", f"Key {SECRET}-host")


def test_changed_secret_is_used_from_the_next_request_on(serve, monkeypatch):
    server = serve(echo)
    rule = granted(server)
    ask(rule, to(server))
    monkeypatch.setenv("FXCELL_TEST_TOKEN", "another-token")
    assert ask(rule, to(server))["body"] == b"<Bearer [secret]>" * 3
    assert [request["headers"]["authorization"] for request in server.requests] == [f"Bearer {SECRET}", "Bearer another-token"]


def test_redirect_to_another_host_goes_without_the_secret_even_where_it_leads_back(serve):
    servers = []

    def first(connection, request):
        connection.sendall(OK if request["target"] == "/end" else redirect(to(servers[1])))

    servers += [serve(first), serve(lambda connection, _request: connection.sendall(redirect(to(servers[0], "/end"))))]
    result = ask(granted(*servers), to(servers[0]))
    assert result["status"] == 200
    asked = [request["headers"] for server in servers for request in server.requests]
    assert [headers.get("authorization") for headers in asked] == [f"Bearer {SECRET}", None, None]


def test_redirect_within_the_origin_keeps_the_secret(serve):
    server = serve(lambda connection, request: connection.sendall(OK if request["target"] == "/b" else redirect("/b")))
    ask(granted(server), to(server))
    assert [request["headers"]["authorization"] for request in server.requests] == [f"Bearer {SECRET}"] * 2


def test_other_granted_host_is_asked_without_the_secret(serve):
    told, other = serve(), serve()
    rule = granted(told, other)
    ask(rule, to(told))
    ask(rule, to(other))
    assert told.requests[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in other.requests[0]["headers"]


def test_secrets_sent_to_all_hosts_still_do_not_follow_a_redirect_between_them(serve):
    other = serve()
    server = serve(redirect(to(other)))
    both = [f"127.0.0.1:{one.port}" for one in (server, other)]
    ask(granted(server, other, secret_hosts=both), to(server))
    assert server.requests[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in other.requests[0]["headers"]


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATION"])
def test_plugin_that_sets_the_same_header_is_denied(serve, name):
    server = serve()
    with pytest.raises(EffectDenied, match="is set by the host, from a secret"):
        ask(granted(server), to(server), headers={name: "mine"})
    assert not server.requests


@pytest.mark.parametrize(
    "say",
    [
        lambda said: redirect(f"http://{said}.evil.example/"),
        lambda said: redirect(f"http://evil.example/?{said}"),
        lambda said: redirect(f"http://[{said}/"),
        lambda said: f"HTTP/1.1 {said}\r\n\r\n".encode(),
        lambda said: f"{said}\r\n\r\n".encode(),
        lambda said: f"HTTP/1.1 200 OK\r\nX {said}: y\r\n\r\n".encode(),
        lambda said: f"HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n".encode(),
        lambda said: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {said}\r\n\r\n".encode(),
    ],
    ids=["host", "query", "no url", "status", "no http", "header name", "length", "coding"],
)
def test_secret_in_what_a_server_breaks_is_not_in_the_failure(serve, say):
    server = serve(lambda connection, request: connection.sendall(say(request["headers"]["authorization"][7:])))
    with pytest.raises((EffectDenied, EffectFailed)) as failed:
        ask(granted(server), to(server))
    chain = [failed.value]
    while chain[-1].__cause__ or (chain[-1].__context__ and not chain[-1].__suppress_context__):
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for error in chain:
        assert SECRET not in str(error)
        assert SECRET not in repr(getattr(error, "to_dict", dict)())


@pytest.mark.parametrize("characters", [4, 9, 18])
@pytest.mark.parametrize("end", ["loop", "host", "long host"])
def test_secret_that_the_end_of_an_error_text_cuts_through_is_not_seen_in_part(serve, monkeypatch, end, characters):
    monkeypatch.setenv("FXCELL_TEST_TOKEN", secret := "s3cret0token1of2a3plain4kind")

    def say(connection, request):
        key = request["headers"].get("authorization", "").partition(" ")[2] or secret
        before = f"http://127.0.0.1:{server.port}/"
        to_loop = "/" + "a" * (200 - len(before) - 1 - characters) + "/" + key
        to_host = f"http://{'a' * (77 - characters)}{key}!/"
        to_long_host = f"http://{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * (17 - characters)}{key}/"
        connection.sendall(redirect({"loop": to_loop, "host": to_host, "long host": to_long_host}[end]))

    server = serve(say)
    hosts = [f"127.0.0.1:{server.port}", "*"]
    rule = policy(*hosts, secrets=BEARER, secret_hosts=hosts[:1])

    def nothing(_host, _port):
        raise OSError

    with pytest.raises(EffectFailed) as failed:
        ask(rule, to(server), client=HTTPClient(resolve=nothing))
    assert failed.value.kind == {"loop": "too_many_redirects", "host": "bad_request", "long host": "name_not_found"}[end]
    told = str(failed.value).replace("[secret]", "")
    assert not any(secret[:length] in told for length in range(3, len(secret) + 1)), told


def test_secret_as_a_redirects_host_is_not_in_the_denial_or_the_record_in_small_letters(serve, monkeypatch, tmp_path):
    monkeypatch.setenv("FXCELL_TEST_TOKEN", "S3CRETVALUE12345")
    server = serve(lambda connection, _request: connection.sendall(redirect("http://S3CRETVALUE12345.example/")))
    worker = FX.StartWorkerProcess(policy=granted(server)) | run
    with recording(worker, tmp_path / "run.fxr"):
        denied = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=FX.HTTPRequest(url=to(server))))
    assert isinstance(denied, EffectDenied)
    shown = str(denied) + repr(denied.to_dict()) + (tmp_path / "run.fxr").read_bytes().decode("latin-1")
    assert "s3cretvalue" not in shown.lower()
    assert "[secret].example" in str(denied)


@pytest.mark.parametrize("secret", ['s3cret"{value}^12345', "S3cret|Value 12345"])
def test_secret_that_the_host_percent_encodes_in_a_redirect_is_not_in_the_url_that_is_answered(serve, monkeypatch, secret):
    monkeypatch.setenv("FXCELL_TEST_TOKEN", secret)
    server = serve(
        lambda connection, request: connection.sendall(OK if "?" in request["target"] else redirect(f"/?t={secret}"))
    )
    assert ask(granted(server), to(server))["url"] == to(server, "/?t=[secret]")


@pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase])
def test_secret_answered_in_another_case_is_cut_out(serve, change):
    server = serve(
        lambda connection, request: connection.sendall(answer("200 OK", body=change(request["headers"]["authorization"]).encode()))
    )
    body = ask(granted(server), to(server))["body"]
    assert change(SECRET).encode() not in body
    assert body.endswith(b"[secret]")


def test_secret_in_a_redirect_that_is_followed_is_not_in_the_url_that_is_answered(serve):
    server = serve(
        lambda connection, request: connection.sendall(OK if "?" in request["target"] else redirect(f"/?t={SECRET}"))
    )
    assert ask(granted(server), to(server))["url"] == to(server, "/?t=[secret]")


def test_bug_in_the_host_writes_the_log_without_the_secret(serve, monkeypatch, caplog):
    def broken(*_):
        raise ValueError(f"could not read Bearer {SECRET}")

    monkeypatch.setattr("fxcell.host.effects.http._judge", broken)
    caplog.set_level(logging.DEBUG)
    server = serve()
    with pytest.raises(EffectFailed) as failed:
        ask(granted(server), to(server))
    assert failed.value.kind == "internal"
    assert "could not read Bearer [secret]" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "KeyError"),
        ("short", "has not between 8"),
        ("with\nline-end", "characters that a header"),
        ("émigré-token", "characters that a header"),
        (" padded-token ", "characters that a header"),
    ],
)
def test_missing_or_unusable_secret_sends_nothing_and_only_the_log_says_why(serve, monkeypatch, caplog, value, why):
    monkeypatch.delenv("FXCELL_TEST_TOKEN")
    if value is not None:
        monkeypatch.setenv("FXCELL_TEST_TOKEN", value)
    server = serve()
    with pytest.raises(EffectFailed) as failed:
        ask(granted(server), to(server))
    assert failed.value.kind == "no_secret"
    assert "FXCELL_TEST_TOKEN" not in str(failed.value)
    assert why in caplog.text
    if value:
        assert value not in caplog.text
    assert not server.requests


def test_file_that_is_a_pipe_or_not_there_is_no_secret_and_does_not_block(serve, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = serve()
    for name in ("pipe", "nothing", "."):
        with pytest.raises((EffectFailed, PolicyError)):
            ask(granted(server, secrets={"X-Key": f"file:{tmp_path}/{name}"}), to(server))
    assert not server.requests


def test_secret_is_not_part_of_the_policy_in_any_form(tmp_path, monkeypatch):
    rule = {"hosts": ["api.example.com"], "secrets": BEARER}
    one = Policy(effects={"HTTPRequest": rule})
    monkeypatch.setenv("FXCELL_TEST_TOKEN", "quite-another")
    two = Policy.from_data(one.to_data())
    (tmp_path / "p.toml").write_text(to_toml(one))
    assert one.digest == two.digest == load_policy(tmp_path / "p.toml").digest
    assert one.effects == two.effects
    forms = [repr(one), str(one.to_data()), to_toml(one), pickle.dumps(one).decode("latin-1"), one.digest]
    assert not [form for form in forms if SECRET in form or "quite-another" in form]
    other = Policy(effects={"HTTPRequest": {**rule, "secrets": {"Authorization": "Bearer env:OTHER"}}})
    assert other.digest != one.digest
    with pytest.raises(TypeError):
        pickle.dumps(secrets.resolve("HTTPRequest", BEARER))


BAD = [
    ('{ Authorization = "Bearer SECRET" }', "must say where the value is"),
    ('{ Authorization = "SECRET" }', "must say where the value is"),
    ('{ Authorization = "env:" }', "must say where the value is"),
    ("{ Authorization = 5 }", "must say where the value is"),
    ('{ Authorization = "env:A B" }', "must say where the value is"),
    ('{ Authorization = "env:1SECRET" }', "takes the name of one variable"),
    ('{ Authorization = "file:SECRET" }', "takes an absolute path"),
    ('{ Authorization = "file:/a/../SECRET" }', "takes an absolute path"),
    ('{ "Bad Name" = "env:A" }', "is not the name of a header"),
    ('{ Host = "env:A" }', "decides where a request goes"),
    ('{ Content-Length = "env:A" }', "decides where a request goes"),
    ('{ Proxy-Authorization = "env:A" }', "decides where a request goes"),
    ('{ Authorization = "env:A", authorization = "env:B" }', "twice, in another case"),
    ('["env:A"]', "must be a table"),
    ('"env:A"', "must be a table"),
]


@pytest.mark.parametrize(("table", "message"), BAD, ids=[table for table, _ in BAD])
def test_table_that_is_none_is_an_error_with_the_line_and_without_what_stands_in_it(table, message, tmp_path):
    path = tmp_path / "bad.toml"
    text = table.replace("SECRET", SECRET)
    path.write_text(f'[effects]\nHTTPRequest = {{ hosts = ["a.example"], secrets = {text} }}\n')
    with pytest.raises(PolicyError, match=message) as refused:
        load_policy(path)
    assert refused.value.line == 2
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"hosts": ["*"], "secrets": BEARER}, "would go to every host"),
        ({"hosts": ["*", "a.example"], "secrets": BEARER, "secret_hosts": ["*"]}, "would go to every host"),
        ({"hosts": ["a.example", "b.example"], "secrets": BEARER}, r"say which of them .* secret_hosts = \["),
        ({"hosts": ["a.example"], "secret_hosts": ["a.example"]}, "there are no secrets"),
        ({"hosts": ["a.example"], "secrets": BEARER, "secret_hosts": ["a.exampel"]}, "did you mean 'a.example'"),
        ({"hosts": ["*.a.example"], "secrets": BEARER, "secret_hosts": ["x.a.example"]}, "is no entry of hosts"),
    ],
)
def test_secrets_for_hosts_that_nobody_named_are_refused(rule, message):
    with pytest.raises(PolicyError, match=message):
        Policy(effects={"HTTPRequest": rule})


def test_secrets_are_never_sent_over_plain_http_to_a_public_host():
    plain = Policy(effects={"HTTPRequest": {"hosts": ["api.example.com"], "secrets": BEARER}})
    with pytest.raises(EffectDenied, match="over https alone"):
        ask(plain, "http://api.example.com/")


def test_rule_without_secrets_keeps_its_digest_and_one_host_needs_no_second_naming():
    rule = {"hosts": ["a.example"], "secrets": BEARER}
    one, two = Policy(effects={"HTTPRequest": rule}), Policy(effects={"HTTPRequest": {**rule, "secret_hosts": ["a.example"]}})
    assert one.digest == two.digest
    without = Policy(effects={"HTTPRequest": {"hosts": ["a.example"]}}).effects["HTTPRequest"].to_data()
    assert not {"secrets", "secret_hosts", "ask"} & without.keys()


@zef_function
def looks_for_it(url):
    """All texts that the worker holds, its environment, and what the answer and the errors say."""
    import gc
    import os

    said = [FX.HTTPRequest(url=url) | run, dict(os.environ)]
    for headers in ({"AUTHORIZATION": "x"}, {"Host": "x"}):
        try:
            FX.HTTPRequest(url=url, headers=headers) | run
        except Exception as error:
            said.append([str(error), {k: v for k, v in vars(error).items() if isinstance(v, str)}])
    needle = "".join(reversed("/nekoT-terc"))
    held = [thing for holder in gc.get_objects() for thing in gc.get_referents(holder) if type(thing) in (str, bytes)]
    said.append([str(thing)[:2000] for thing in held if thing is not needle and needle in str(thing)])
    return said


@zef_function
def asks_and_dies(url):
    import ctypes

    FX.HTTPRequest(url=url) | run
    ctypes.string_at(0)


def test_secret_is_nowhere_in_the_worker_its_records_its_crash_and_the_log(serve, caplog):
    caplog.set_level(logging.DEBUG)
    server = serve(echo)
    worker = FX.StartWorkerProcess(policy=granted(server)) | run
    told = FX.SendCommandToWorkerProcess(process=worker, command=looks_for_it(to(server))) | run
    assert SECRET not in repr(told)
    assert told[-1] == []
    records = registry.session_of(worker).broker.records
    assert len(records) == 3
    crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=asks_and_dies(to(server))))
    assert isinstance(crash, WorkerCrash)
    assert SECRET not in repr(list(records)) + repr(crash.to_dict()) + str(crash) + caplog.text
    assert [request["headers"]["authorization"] for request in server.requests] == [f"Bearer {SECRET}"] * 2
