"""`fxcell policy learn`: what is learnt lets the plugin pass, each line of it is needed, and nothing dangerous is performed."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from fxcell import FX, EffectDenied, Limits, OutcomeError, Policy, WorkerProcess, load_policy, run
from fxcell.host import audit, learning
from fxcell.host.commands import exits
from fxcell.host.learning import learn
from fxcell.host.learning_grants import Grants
from fxcell.host.learning_tapes import Mode, performed_by_default
from fxcell.host.learnt_text import learnt_text
from fxcell.host.plugins import load_plugin
from fxcell.policies.errors import PolicyError
from fxcell.policies.words import WORDS
from tests.host.test_command_run import fxcell, only_line
from tests.host.web import OK, redirect
from tests.host.web import serve as serve  # noqa: PLC0414 - the fixture

HEAD = "from fxcell import FX, run\n"
PLUGINS = {
    "nothing": "def main():\n    return sum(range(10))\n",
    "effects": (
        "def main():\n"
        "    FX.Print(content='hello') | run\n"
        "    FX.Sleep(seconds=0.01) | run\n"
        "    FX.Sleep(seconds=0.02) | run\n"
        "    FX.Log(message='seen') | run\n"
        "    return len(FX.RandomBytes(count=20) | run) + len(FX.RandomBytes(count=5) | run)\n"
    ),
    "threads": (
        "import threading\n"
        "def main():\n"
        "    found = []\n"
        "    threads = [threading.Thread(target=found.append, args=(n,)) for n in range(3)]\n"
        "    for thread in threads:\n"
        "        thread.start()\n"
        "    for thread in threads:\n"
        "        thread.join()\n"
        "    return sorted(found)\n"
    ),
    "scratch": (
        "import os, tempfile\n"
        "def main():\n"
        "    path = os.path.join(tempfile.gettempdir(), 'file')\n"
        "    with open(path, 'wb') as file:\n"
        "        file.write(b'x' * (3 << 20))\n"
        "    return os.path.getsize(path)\n"
    ),
    "processes": (
        "import os\n"
        "def main():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(7)\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
    ),
    "libraries": (
        "def main():\n"
        "    from PIL import Image\n"
        "    return Image.new('RGB', (3, 2)).size\n"
    ),
    "memory": "def main():\n    return len(bytearray(400 << 20))\n",
}  # fmt: skip
EXPECTED = {
    "nothing": (set(), set(), set()),
    "effects": (set(), set(), {"Print", "Sleep", "Log", "RandomBytes"}),
    "threads": ({"threads"}, set(), set()),
    "scratch": ({"scratch"}, {"scratch_bytes"}, set()),
    "processes": ({"processes"}, {"processes"}, set()),
    "libraries": ({"load_libraries"}, set(), set()),
    "memory": (set(), {"memory_bytes"}, set()),
}
"""Plugin -> words, limits, effects that it needs."""


def plugin_of(tmp_path, source, function=None):
    (tmp_path / "plug.py").write_text(HEAD + source)
    return load_plugin(str(tmp_path / "plug.py"), function)


def ran(policy, plugin, **arguments):
    """What a plugin gives in an ordinary worker: effects judged and performed."""
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=plugin.call(**arguments), deadline_s=30))
    finally:
        FX.StopWorkerProcess(process=worker) | run


def without_a_line(policy):
    """(line, policy without it) for every line of a learnt file; a policy that cannot be is told as None."""
    plain = Limits()
    for word in policy.allow:
        yield f"allow.{word}", lambda word=word: policy.replaced(allow=policy.allow - {word})
    for name in policy.effects:
        rest = {other: rule for other, rule in policy.effects.items() if other != name}
        yield f"effects.{name}", lambda rest=rest: policy.replaced(effects=rest)
    for name, value in policy.limits.to_data().items():
        if value != getattr(plain, name):
            limits = dataclasses.replace(policy.limits, **{name: getattr(plain, name)})
            yield f"limits.{name}", lambda limits=limits: policy.replaced(limits=limits)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_passes_under_what_was_learnt_and_no_line_can_go(tmp_path, name):
    plugin = plugin_of(tmp_path, PLUGINS[name])
    learnt = learn(plugin, {})
    assert not isinstance(learnt.outcome, OutcomeError), learnt.outcome
    file = tmp_path / "learnt.toml"
    file.write_text(learnt_text(learnt, "plug.py"))
    policy = load_policy(str(file))
    assert policy.digest == learnt.policy.digest
    assert ran(policy, plugin) == learnt.outcome
    words, limits, effects = EXPECTED[name]
    lines = dict(without_a_line(policy))
    changed = {line.removeprefix("limits.") for line in lines if line.startswith("limits.")}
    assert (set(policy.allow), changed, set(policy.effects)) == (words, limits, effects)
    for line, less in lines.items():
        assert learnt.reasons[line], line
        try:
            narrower = less()
        except PolicyError:
            continue  # the word and its limit need each other
        assert isinstance(ran(narrower, plugin), OutcomeError), line


def test_reasons_stand_beside_the_lines_as_comments(tmp_path):
    text = learnt_text(learn(plugin_of(tmp_path, PLUGINS["threads"]), {}), "plug.py")
    assert text.splitlines()[0] == "# learnt from plug.py: the least under which it does the same again"
    assert '    "threads",  # without it RuntimeError: can\'t start new thread' in text
    text = learnt_text(learn(plugin_of(tmp_path, PLUGINS["effects"]), {}), "plug.py")
    assert "Sleep = { max_seconds = 0.02 }  # 2 times; without it FX.Sleep is denied" in text


def test_grant_that_is_seldom_meant_is_warned_of_in_the_learnt_policy(tmp_path):
    source = "def main():\n    return FX.GetEnvironment(name='DB_PASSWORD') | run\n"
    learnt = learn(plugin_of(tmp_path, source), {}, Mode.SIMULATE)
    assert "# warning, effects.GetEnvironment.names: DB_PASSWORD looks like a secret" in learnt_text(learnt, "plug.py")


def test_comment_that_quotes_a_plugin_stays_a_comment(tmp_path):
    source = (
        "import threading\n"
        "def main():\n"
        "    try:\n"
        "        threading.Thread(target=int).start()\n"
        "    except RuntimeError:\n"
        "        raise ValueError('x\\n[effects]\\nReadFile = { under = [\"/etc\"] }\\r\\x1b[31m')\n"
        "    return 1\n"
    )
    learnt = learn(plugin_of(tmp_path, source), {})
    file = tmp_path / "learnt.toml"
    file.write_text(learnt_text(learnt, "plug.py\nallow = []"))
    assert load_policy(str(file)).digest == learnt.policy.digest
    assert load_policy(str(file)).effects == {}
    assert "\x1b" not in file.read_text()


def test_effect_whose_denial_the_plugin_does_not_mind_is_left_out(tmp_path):
    source = (
        "from fxcell import EffectDenied\n"
        "def main():\n"
        "    try:\n"
        "        FX.Log(message='by the way') | run\n"
        "    except EffectDenied:\n"
        "        pass\n"
        "    return FX.RandomBytes(count=1) | run and 1\n"
    )
    learnt = learn(plugin_of(tmp_path, source), {})
    assert (set(learnt.policy.effects), learnt.asked["Log"]) == ({"RandomBytes"}, 1)


def test_effect_that_was_performed_and_is_not_needed_is_named_with_its_rule_in_a_comment(tmp_path):
    (tmp_path / "out").mkdir()
    folder = str((tmp_path / "out").resolve())
    source = (
        "def main():\n"
        "    try:\n"
        f"        FX.WriteFile(path='{folder}/report', content=b'x') | run\n"
        "    except Exception:\n"
        "        pass\n"
    )
    learnt = learn(plugin_of(tmp_path, source), {}, Mode.PERFORM)
    assert os.path.exists(f"{folder}/report")
    text = learnt_text(learnt, "plug.py")
    comment = "# left out, because the plugin answers the same without it: WriteFile = { "
    assert [f'under = ["{folder}"]' in line for line in text.splitlines() if line.startswith(comment)] == [True]
    assert list(learnt.left_out) == ["WriteFile"]


STATE = (
    "def main():\n"
    "    FX.KeyValueSet(key='a', value=b'kept') | run\n"
    "    return (FX.KeyValueGet(key='a') | run) or b''\n"
)


def test_state_is_performed_in_a_directory_of_its_own_and_the_learnt_one_is_said_to_be_a_placeholder(tmp_path):
    plugin = plugin_of(tmp_path, STATE)
    learnt = learn(plugin, {}, Mode.PERFORM)
    assert learnt.outcome == b"kept"
    text = learnt_text(learnt, "plug.py")
    lines = [line for line in text.splitlines() if line.startswith("KeyValue")]
    assert len(lines) == 2
    assert all('"/srv/app/state"' in line and "directory is a PLACEHOLDER" in line for line in lines)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "learnt.toml").write_text(text.replace("/srv/app/state", str((tmp_path / "state").resolve())))
    done = fxcell("run", str(tmp_path / "plug.py"), "--policy", str(tmp_path / "learnt.toml"))
    assert (done.returncode, "kept" in done.stdout) == (exits.VALUE, True)


def test_plugin_that_answers_another_value_each_time_is_held_to_any_value(tmp_path):
    plugin = plugin_of(tmp_path, "import os\ndef main():\n    FX.Now() | run\n    return os.urandom(8)\n")
    learnt = learn(plugin, {})
    assert not learnt.same
    assert set(learnt.policy.effects) == {"Now"}
    assert "answers another value each time" in learnt_text(learnt, "plug.py")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def main():\n    raise ValueError('no')\n", "ValueError: no"),
        ("import os\ndef main():\n    os.execv('/bin/sh', ['sh'])\n", "denied_syscall"),
        ("def main():\n    return FX.ReadFile(path='/proc/self/environ') | run\n", "FX.ReadFile is denied"),
    ],
)
def test_plugin_that_no_policy_lets_pass_is_not_learnt(tmp_path, source, says):
    learnt = learn(plugin_of(tmp_path, source), {}, Mode.PERFORM)
    assert learnt.policy is None
    assert says in learnt.fault


def test_plugin_that_asks_another_host_each_time_is_not_learnt(tmp_path):
    source = (
        "import os\n"
        "def main():\n"
        "    return (FX.HTTPRequest(url=f'https://h{os.urandom(8).hex()}.example/') | run)['status']\n"
    )
    learnt = learn(plugin_of(tmp_path, source), {}, Mode.SIMULATE)
    assert (learnt.policy, learnt.outcome) == (None, 200)
    assert learnt.fault == "the plugin does something else each time: under what the run needed, FX.HTTPRequest is denied"


def test_effect_that_the_manifest_does_not_request_is_not_learnt(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "plug.py").write_text(HEAD + "def main():\n    return FX.Now() | run\n")
    (folder / "plugin.toml").write_text('name = "n"\nversion = "1"\nentry = "plug:main"\neffects = ["Print"]\n')
    learnt = learn(load_plugin(str(folder)), {})
    assert isinstance(learnt.outcome, EffectDenied)


# --- what is performed

ASK = (
    "def main(url, method='GET', path=''):\n"
    "    if path:\n"
    "        FX.ReadFile(path=path) | run\n"
    "    answer = FX.HTTPRequest(url=url, method=method) | run\n"
    "    return [answer['status'], answer['body']]\n"
)


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


def test_grants_grow_to_the_narrowest_rules_that_hold_all():
    grants = Grants(Policy(), None)
    effects = [
        FX.HTTPRequest(url="https://b.example/x"),
        FX.HTTPRequest(url="https://a.example:8443/", method="PUT"),
        FX.ReadFile(path="/srv/data/deep/file"),
        FX.ReadFile(path="/srv/data/file"),
        FX.RandomBytes(count=3),
        FX.RandomBytes(count=2),
    ]
    assert all(grants.include(effect) for effect in effects)
    rules = {name: rule.to_data() for name, rule in grants.policy.effects.items()}
    assert rules["HTTPRequest"]["hosts"] == ["a.example:8443", "b.example"]
    assert rules["HTTPRequest"]["methods"] == ["GET", "PUT"]
    assert rules["ReadFile"]["under"] == ["/srv/data"]
    assert rules["RandomBytes"] == {"max_count": 3}
    assert not grants.include(FX.HTTPRequest(url="ftp://a.example/"))
    assert not grants.include(FX.ListWorkerProcesses())


def test_every_word_has_its_place_in_the_order_of_trials():
    assert set(learning._STRONGEST_FIRST) == set(WORDS)


# --- the command


def test_command_prints_a_policy_under_which_the_plugin_runs(tmp_path):
    plugin_of(tmp_path, PLUGINS["effects"])
    plugin, file = str(tmp_path / "plug.py"), str(tmp_path / "plug.toml")
    done = fxcell("policy", "learn", plugin, "--output", file)
    assert (done.returncode, done.stdout) == (exits.VALUE, "")
    assert fxcell("run", plugin, "--policy", file).returncode == exits.VALUE
    again = fxcell("policy", "learn", plugin, "-o", file)
    assert again.returncode == exits.USAGE
    assert "exists already" in only_line(again)
    assert fxcell("policy", "learn", plugin).stdout == (tmp_path / "plug.toml").read_text()


def test_command_says_what_was_simulated_and_that_the_filter_is_wider(tmp_path):
    plugin_of(tmp_path, ASK)
    done = fxcell("policy", "learn", str(tmp_path / "plug.py"), "-a", "url=http://127.0.0.1:9/", "--simulate")
    assert done.returncode == exits.VALUE
    assert only_line(done).startswith("fxcell: FX.HTTPRequest was simulated, 1 of 1")
    assert done.stdout.startswith("# learnt from plug.py(url): ")  # names alone: a value can be a secret
    assert "# simulated" in done.stdout
    told = " ".join(fxcell("policy", "learn", "--help").stdout.split())
    assert "with a wider filter" in told


def test_command_that_learns_nothing_exits_1_and_what_cannot_be_run_exits_2(tmp_path):
    plugin_of(tmp_path, "def main():\n    raise ValueError('no')\n")
    plugin = str(tmp_path / "plug.py")
    done = fxcell("policy", "learn", plugin)
    assert (done.returncode, done.stdout) == (exits.DIFFERENT, "")
    assert "ValueError: no" in only_line(done)
    assert fxcell("policy", "learn", f"{plugin}:other").returncode == exits.USAGE
    assert fxcell("policy", "learn", os.devnull).returncode == exits.USAGE
    assert fxcell("policy", "learn", plugin, "--perform", "--simulate").returncode == exits.USAGE


def test_audit_of_learning_says_of_each_effect_whether_it_was_simulated(tmp_path):
    plugin = plugin_of(tmp_path, "def main():\n    FX.Now() | run\n    FX.DeleteFile(path='/srv/a/b') | run\n")
    with audit.to_file(tmp_path / "log"):
        learn(plugin, {})
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = [(record["effect"], record["decision"]) for record in records if record["event"] == "effect"]
    assert told[:4] == [("Now", "granted"), ("Now", "done"), ("DeleteFile", "granted"), ("DeleteFile", "simulated")]
    assert ("DeleteFile", "done") not in told
    assert ("Now", "done") not in told[2:]  # trials perform nothing
