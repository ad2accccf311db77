"""Policies that are learnt: what is learnt lets the plugin pass, each line of it is needed, and its comments say why."""

from __future__ import annotations

import dataclasses
import os

import pytest

from fxcell import FX, EffectDenied, Limits, OutcomeError, Policy, load_policy
from fxcell.host import learning
from fxcell.host.commands import exits
from fxcell.host.learning import learn
from fxcell.host.learning_grants import Grants
from fxcell.host.learning_tapes import Mode
from fxcell.host.learnt_text import learnt_text
from fxcell.host.plugins import load_plugin
from fxcell.policies.errors import PolicyError
from fxcell.policies.words import WORDS
from tests.host.learning import EXPECTED, HEAD, PLUGINS, plugin_of, ran
from tests.host.test_command_run import fxcell


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
