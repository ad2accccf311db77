"""`fxcell policy learn`: it prints a policy that holds, says what was simulated, and exits with what became of it."""

from __future__ import annotations

import os

from fxcell.host.commands import exits
from tests.host.learning import ASK, PLUGINS, plugin_of
from tests.host.test_command_run import fxcell, only_line


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
