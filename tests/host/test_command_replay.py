"""`fxcell run --record`, `fxcell run --dry-run` and `fxcell replay` as a user runs them."""

from __future__ import annotations

import json

import pytest

from fxcell.host.commands import exits
from tests.host.test_command_run import fxcell, only_line
from tests.host.web import OK
from tests.host.web import serve as serve  # noqa: PLC0414 - the fixture

PLUGIN = """
from fxcell import FX, run

def main(text='hello'):
    FX.Print(content=text) | run
    print('by itself')
    return FX.Now() | run

def ask(url, path):
    body = (FX.HTTPRequest(url=url, method='POST', body=b'x') | run)['body']
    return [body, FX.ReadFile(path=path) | run]

def die():
    import os
    os.abort()
"""


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "plug.py").write_text(PLUGIN)
    return str(tmp_path / "plug.py")


def test_recorded_run_replays_the_same_and_exits_0(plugin, tmp_path):
    file = str(tmp_path / "run.fxr")
    ran = fxcell("run", plugin, "--record", file)
    assert (ran.returncode, ran.stderr) == (exits.VALUE, "")
    done = fxcell("replay", file)
    assert (done.returncode, done.stdout) == (exits.VALUE, "same: plug, 2 effects, the same result\n")
    told = json.loads(fxcell("replay", file, plugin, "--json").stdout)
    assert told["same"]
    assert repr(told["outcomes"][0]["value"]) == ran.stdout.splitlines()[-1]


def test_changed_plugin_diverges_says_where_and_exits_1(plugin, tmp_path):
    file = str(tmp_path / "run.fxr")
    fxcell("run", plugin, "--record", file)
    with open(plugin, "w") as changed:
        changed.write(PLUGIN.replace("FX.Print(content=text)", "FX.Print(content=text * 2)"))
    done = fxcell("replay", file, plugin)
    assert done.returncode == exits.DIFFERENT
    lines = done.stdout.splitlines()
    assert lines[0].startswith("diverged: plugin: ")
    assert lines[1] == (
        "diverged: effect 1: FX.Print(content='hellohello') was asked for; the record has FX.Print(content='hello')"
    )
    assert fxcell("replay", file).returncode == exits.VALUE


def test_crash_is_recorded_with_the_exit_code_of_the_run(plugin, tmp_path):
    file = str(tmp_path / "run.fxr")
    crashed = fxcell("run", f"{plugin}:die", "--json", "--record", file)
    assert crashed.returncode == exits.SIGNAL + 6
    assert json.loads(crashed.stdout)["evidence"]["reproducer"] == file
    done = fxcell("replay", file)
    assert done.returncode == exits.VALUE
    assert "WorkerCrash: signal" in done.stdout


def test_what_cannot_be_replayed_exits_2(plugin, tmp_path):
    for arguments in ([plugin], [str(tmp_path / "missing")]):
        done = fxcell("replay", *arguments)
        assert (done.returncode, done.stdout) == (exits.USAGE, "")
        assert only_line(done)
    refused = fxcell("run", plugin, "--record", str(tmp_path / "nowhere" / "run.fxr"))
    assert refused.returncode == exits.USAGE
    assert "hello" not in refused.stdout


def test_record_onto_a_file_or_link_that_exists_is_refused_before_the_run_and_leaves_it(plugin, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("notes.txt", "link"):
        refused = fxcell("run", plugin, "--record", str(tmp_path / name))
        assert (refused.returncode, refused.stdout) == (exits.USAGE, "")
        assert "exists already" in only_line(refused)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


def test_dry_run_performs_nothing_and_prints_what_it_would_have(plugin, tmp_path, serve):
    server = serve(OK)
    policy = tmp_path / "web.toml"
    policy.write_text(
        "[effects]\n"
        f'HTTPRequest = {{ hosts = ["127.0.0.1:{server.port}"], methods = ["POST"], private_hosts = true }}\n'
        'ReadFile = { under = ["/etc"] }\n'
    )
    arguments = ["run", f"{plugin}:ask", "-p", str(policy), "-a", f"url=http://127.0.0.1:{server.port}/", "-a", "path=/etc/passwd"]
    done = fxcell(*arguments, "--dry-run")
    assert (done.returncode, done.stderr) == (exits.VALUE, "")
    first, second, result = done.stdout.splitlines()
    assert first.startswith(f"would perform FX.HTTPRequest(url='http://127.0.0.1:{server.port}/', method='POST'")
    assert second == "would perform FX.ReadFile(path='/etc/passwd')"
    assert result == "[b'', b'']"
    assert server.requests == []
    # The control: without --dry-run the server is asked and the file is read.
    done = fxcell(*arguments)
    assert done.stdout.startswith("[b'ok',\n b'root:")
    assert len(server.requests) == 1


def test_audit_of_a_dry_run_says_simulated_and_never_done(plugin, tmp_path):
    log = tmp_path / "log"
    assert fxcell("run", plugin, "--dry-run", "--audit", str(log)).returncode == exits.VALUE
    found = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(record["effect"], record["decision"], record.get("simulated")) for record in found if record["event"] == "effect"]
    assert told == [
        ("Print", "granted", True),
        ("Print", "simulated", None),
        ("Now", "granted", True),
        ("Now", "simulated", None),
    ]


def test_dry_run_still_denies_what_the_policy_does_not_grant(plugin):
    done = fxcell("run", f"{plugin}:ask", "-a", "url=https://a.example/", "-a", "path=/etc/passwd", "--dry-run")
    assert (done.returncode, done.stdout) == (exits.DENIED, "")


def test_dry_run_as_json_keeps_stdout_to_one_object(plugin):
    done = fxcell("run", plugin, "--dry-run", "--json")
    assert json.loads(done.stdout)["outcome"] == "value"
    assert "would perform FX.Print" in done.stderr
