"""What is performed while a policy is learnt: nothing dangerous, nothing twice, and what is private only on demand."""

from __future__ import annotations

import json
import socket

import pytest

from fxcell import FX, EffectDenied, WorkerProcess
from fxcell.host import audit
from fxcell.host.learning import learn
from fxcell.host.learning_tapes import Mode, performed_by_default
from tests.host.learning import ASK, plugin_of, ran
from tests.host.web import OK, redirect
from tests.host.web import serve as serve  # noqa: PLC0414 - the fixture


@pytest.mark.parametrize("mode", Mode)
def test_request_to_a_private_host_is_made_only_where_all_is_to_be_performed(tmp_path, serve, mode):
    server = serve(OK)
    url = f"http://127.0.0.1:{server.port}/"
    learnt = learn(plugin_of(tmp_path, ASK), {"url": url, "method": "POST"}, mode)
    performed = mode is Mode.PERFORM
    assert len(server.requests) == (1 if performed else 0)
    assert learnt.outcome == [200, b"ok" if performed else b""]
    assert learnt.simulated["HTTPRequest"] == (0 if performed else 1)
    rule = learnt.policy.effects["HTTPRequest"].to_data()
    assert (rule["hosts"], rule["methods"], rule["private_hosts"]) == ([f"127.0.0.1:{server.port}"], ["POST"], True)


INWARDS = (
    "def main(public: str, private: str):\n"
    "    seen = []\n"
    "    for url in (private, public, public + 'redirected'):\n"
    "        try:\n"
    "            seen.append(bytes((FX.HTTPRequest(url=url) | run)['body']))\n"
    "        except Exception as error:\n"
    "            seen.append(type(error).__name__)\n"
    "    return seen\n"
)


@pytest.mark.parametrize("mode", [Mode.CAREFUL, Mode.PERFORM])
def test_private_host_that_was_asked_for_opens_none_to_public_names_and_their_redirects(tmp_path, serve, monkeypatch, mode):
    def say(connection, request):
        inner = f"http://127.0.0.1:{server.port}/inner"
        connection.sendall(redirect(inner) if request["target"] == "/redirected" else OK)

    server = serve(say)
    system, names = socket.getaddrinfo, ("public.example", b"public.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: system("127.0.0.1" if host in names else host, *a, **k))
    urls = {"public": f"http://public.example:{server.port}/", "private": f"http://127.0.0.1:{server.port}/"}
    learnt = learn(plugin_of(tmp_path, INWARDS), urls, mode)
    if mode is Mode.PERFORM:  # the control
        assert learnt.outcome == [b"ok"] * 3
        assert len(server.requests) == 4
    else:
        assert learnt.outcome == [b"", "EffectFailed", "EffectFailed"]
        assert server.requests == []


def test_redirect_is_followed_and_its_host_learnt(tmp_path, serve):
    second = serve(OK)
    first = serve(redirect(f"http://127.0.0.1:{second.port}/there"))
    plugin = plugin_of(tmp_path, ASK)
    learnt = learn(plugin, {"url": f"http://127.0.0.1:{first.port}/"}, Mode.PERFORM)
    assert learnt.outcome == [200, b"ok"]
    hosts = learnt.policy.effects["HTTPRequest"].to_data()["hosts"]
    assert set(hosts) == {f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"}
    assert ran(learnt.policy, plugin, url=f"http://127.0.0.1:{first.port}/") == [200, b"ok"]


def test_redirect_of_a_post_is_not_asked_for_twice(tmp_path, serve):
    first = serve(redirect("http://127.0.0.1:1/there", "307 Temporary Redirect"))
    learnt = learn(plugin_of(tmp_path, ASK), {"url": f"http://127.0.0.1:{first.port}/", "method": "POST"}, Mode.PERFORM)
    assert isinstance(learnt.outcome, EffectDenied)
    assert len(first.requests) == 1


def test_write_to_a_hidden_file_is_learnt(tmp_path):
    source = f"def main():\n    FX.WriteFile(path='{tmp_path.resolve()}/.hidden', content=b'1') | run\n    return 1\n"
    learnt = learn(plugin_of(tmp_path, source), {}, Mode.SIMULATE)
    assert (learnt.outcome, learnt.fault) == (1, "")
    assert learnt.policy.effects["WriteFile"].to_data()["hidden"] is True


def test_lines_that_are_printed_by_an_effect_are_in_the_learnt_limit_of_output(tmp_path):
    source = "def main():\n    for _ in range(50):\n        FX.Print(content='x' * 60_000) | run\n    return 1\n"
    plugin = plugin_of(tmp_path, source)
    learnt = learn(plugin, {})
    assert learnt.policy.limits.output_bytes == 4 << 20
    assert ran(learnt.policy, plugin) == 1


def test_file_is_read_by_default_and_not_where_all_is_simulated(tmp_path):
    (tmp_path / "data").mkdir()
    folder = str((tmp_path / "data").resolve())
    for name in ("a", "b"):
        (tmp_path / "data" / name).write_text(name)
    source = f"def main():\n    return [FX.ReadFile(path=f'{folder}/{{n}}') | run for n in 'ab']\n"
    plugin = plugin_of(tmp_path, source)
    learnt = learn(plugin, {})
    assert learnt.outcome == [b"a", b"b"]
    assert learnt.policy.effects["ReadFile"].to_data()["under"] == [folder]
    assert learn(plugin, {}, Mode.SIMULATE).outcome == [b"", b""]


def test_run_that_is_more_than_can_be_kept_is_not_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr("fxcell.host.recording.MAX_BYTES", 100_000)
    source = "def main():\n    return sum(len(FX.RandomBytes(count=60_000) | run) for _ in range(5))\n"
    learnt = learn(plugin_of(tmp_path, source), {})
    assert (learnt.outcome.kind, learnt.asked["RandomBytes"]) == ("too_large", 2)


PERFORMED = [
    (FX.HTTPRequest(url="https://a.example/"), False, True),
    (FX.HTTPRequest(url="https://a.example/", method="HEAD"), False, True),
    (FX.HTTPRequest(url="https://a.example/"), True, False),
    (FX.HTTPRequest(url="https://a.example/", body=b"x"), False, False),
    (FX.HTTPRequest(url="https://a.example/", method="POST"), False, False),
    (FX.HTTPRequest(url="http://localhost/"), False, False),
    (FX.HTTPRequest(url="http://169.254.169.254/latest"), False, False),
    (FX.HTTPRequest(url="http://user@a.example/"), False, False),
    (FX.ReadFile(path="/srv/a"), True, True),
    (FX.Print(content="x"), True, True),
    (FX.StopWorkerProcess(process=WorkerProcess("w1")), False, False),
]


@pytest.mark.parametrize(("effect", "has_read", "expected"), PERFORMED, ids=range(len(PERFORMED)))
def test_by_default_only_what_changes_nothing_and_carries_nothing_away_is_performed(effect, has_read, expected):
    assert performed_by_default(effect, has_read=has_read) is expected


def test_audit_of_learning_says_of_each_effect_whether_it_was_simulated(tmp_path):
    plugin = plugin_of(tmp_path, "def main():\n    FX.Now() | run\n    FX.DeleteFile(path='/srv/a/b') | run\n")
    with audit.to_file(tmp_path / "log"):
        learn(plugin, {})
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = [(record["effect"], record["decision"]) for record in records if record["event"] == "effect"]
    assert told[:4] == [("Now", "granted"), ("Now", "done"), ("DeleteFile", "granted"), ("DeleteFile", "simulated")]
    assert ("DeleteFile", "done") not in told
    assert ("Now", "done") not in told[2:]  # trials perform nothing
