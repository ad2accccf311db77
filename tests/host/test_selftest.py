"""`fxcell selftest`: every attack is contained under hardened policies, and works where nothing contains it."""

import ast
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from fxcell import UserError, load_policy
from fxcell.host.selftest import judgement, trial
from fxcell.host.selftest.attack import CATEGORIES
from fxcell.host.selftest.table import ATTACKS
from tests.leaks import assert_nothing_left
from tests.programs.without_layers import run_without

FOLDER = Path(trial.__file__).parent / "attacks"
OUTSIDE = ("files", "writes", "environment", "network", "processes", "privileges")
"""What these categories try works without a sandbox; crashes, resources and protocol are contained even there."""

NEEDS_MORE = {
    "descriptors": "nothing is inherited, sandbox or not",
    "file_by_walking": "the machine may be too large to look through",
    "unix_by_channel": "a connected stream takes no address",
    "socket_alg": "the kernel may lack AF_ALG",
    "socket_vsock": "the kernel may lack AF_VSOCK",
    "socket_mptcp": "the kernel may lack MPTCP",
    "socket_packet": "the kernel may lack packet sockets",
    "tcp6": "the machine may lack IPv6",
    "dns": "the machine may lack a name server and /etc/hosts",
    "kcmp": "it compares with process 1",
    "kexec_load": "the kernel may lack it",
    "init_module": "the kernel may lack modules",
    "finit_module": "the kernel may lack modules",
    "swapon": "the kernel may lack swap",
    "quotactl": "the kernel may lack quotas",
    "memfd_secret": "the kernel may lack it",
    "io_uring_setup": "sysctl kernel.io_uring_disabled",
    "file_by_handle": "the file system may lack handles",
    "limits": "a hard limit is one without a sandbox, too",
    "terminal": "a worker's descriptors are no terminal",
    "x32": "the kernel may lack x32",
}
"""Attacks that may fail without a sandbox, and why."""


def selftest(*arguments):
    with assert_nothing_left(patience_s=10):
        return subprocess.run(
            [sys.executable, "-m", "fxcell", "selftest", *arguments], capture_output=True, text=True, timeout=90
        )


def test_table_names_what_is_there():
    assert len(ATTACKS) >= 40
    assert [name for name, count in Counter(attack.name for attack in ATTACKS).items() if count > 1] == []
    assert {attack.category for attack in ATTACKS} == set(CATEGORIES)
    assert set(NEEDS_MORE) <= {attack.name for attack in ATTACKS}
    for attack in ATTACKS:
        assert attack.tries
        assert attack.ends
        assert attack.deadline_s <= 20


def test_every_attack_has_a_function_with_a_docstring_and_none_is_left_over():
    there = {}
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path.name
        there |= {
            f"{path.stem}.{node.name}": ast.get_docstring(node)
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and path.stem != "entry"
        }
    assert set(there) == {attack.function for attack in ATTACKS}
    assert all(there.values())


@pytest.mark.slow
def test_everything_holds_under_compute_within_30_seconds():
    done = selftest()
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert lines[-1] == f"{len(ATTACKS)} of {len(ATTACKS)} attacks contained, 0 NOT CONTAINED."
    assert lines[-2].endswith("answered rightly.")
    assert float(lines[-4].split(", ")[-1].removesuffix(" s.")) < 30
    for attack in ATTACKS:
        assert any(line.startswith(f"{attack.name} ") for line in lines), attack.name


@pytest.mark.slow
def test_everything_holds_in_the_unprivileged_tier_where_user_namespaces_are_denied(tmp_path):
    policy = tmp_path / "small.toml"
    policy.write_text('extends = "compute"\nisolation = "unprivileged"\n')
    command = [sys.executable, "-m", "fxcell", "selftest", "--policy", policy, "--json"]
    with assert_nothing_left(patience_s=10):
        host = run_without(["no-user-namespaces"], command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = host.communicate(timeout=90)
    if os.geteuid() == 0 and "as user " in errors:
        pytest.skip(f"this interpreter is closed to other users; the ordinary user's run does this: {errors[:200]}")
    told = json.loads(output)
    assert [row for row in told["attacks"] if row["verdict"] == "NOT CONTAINED"] == []
    assert (host.returncode, errors, told["tier"]) == (0, "", "unprivileged")


@pytest.mark.slow
def test_json_is_one_object_with_these_keys():
    done = selftest("--policy", "strict", "--json")
    told = json.loads(done.stdout)
    assert [row for row in told["attacks"] if row["verdict"] == "NOT CONTAINED"] == []
    assert (done.returncode, done.stderr) == (0, "")
    assert set(told) == {
        "fxcell", "held", "policy", "tier", "layers", "notes", "kernel", "machine", "uid", "imported_beforehand", "seconds",
        "counts", "attacks",
    }  # fmt: skip
    assert told["held"] is True
    assert told["counts"] == {"tried": len(ATTACKS), "ok": len(ATTACKS), "granted": 0, "not_contained": 0, "skipped": 0}
    assert told["policy"] == {"name": "strict", "digest": load_policy("strict").digest}
    assert "ctypes" in told["imported_beforehand"]
    assert [attack["name"] for attack in told["attacks"]] == [attack.name for attack in ATTACKS]
    for attack in told["attacks"]:
        assert set(attack) == {
            "name", "category", "tries", "verdict", "outcome", "detail", "layer", "secret_seen", "sentinels_touched", "seconds",
        }  # fmt: skip
        assert attack["layer"], attack
        assert (attack["secret_seen"], attack["sentinels_touched"]) == (False, [])


@pytest.fixture(scope="module")
def trusted():
    """The control: no sandbox at all."""
    before = sorted(os.listdir("/")), sorted(os.listdir(tempfile.gettempdir()))
    tried = trial.perform(load_policy("trusted"))
    left = sorted(os.listdir("/")), sorted(os.listdir(tempfile.gettempdir()))
    assert [name for name in left[0] + left[1] if "selftest" in name and name not in before[0] + before[1]] == []
    return tried


@pytest.mark.slow
def test_without_a_sandbox_the_attacks_work(trusted):
    assert not trusted.held
    worked = {row.attack.name for row in trusted.rows if row.verdict == judgement.NOT_CONTAINED}
    expected = {a.name for a in ATTACKS if a.category in OUTSIDE and a.name not in NEEDS_MORE and not a.x86_only}
    if os.geteuid() != 0:  # then the kernel itself stops what needs a privilege
        expected = {
            name for name in expected if name.startswith(("file_", "tcp", "udp", "unix_", "fork", "exec", "kill_host"))
        }
        expected -= {"file_by_handle", "file_by_walking"}
    assert sorted(expected - worked) == []
    assert len(worked) >= (60 if os.geteuid() == 0 else 25)


@pytest.mark.slow
def test_without_a_sandbox_the_sentinels_tell_of_it(trusted):
    rows = {row.attack.name: row for row in trusted.rows}
    assert rows["file_by_path"].seen
    for name in ("file_append", "file_unlink", "tcp", "udp", "unix_named", "unix_abstract", "kill", "plant_beside"):
        assert rows[name].touched, name
        assert rows[name].layer == ""


@pytest.mark.slow
def test_without_a_sandbox_crashes_limits_and_protocol_are_contained_all_the_same(trusted):
    for row in trusted.rows:
        if row.attack.category not in OUTSIDE and row.attack.name not in ("scratch", "forks", "threads"):
            assert row.verdict == judgement.HELD, row


def test_what_the_policy_grants_is_told_and_not_held_against_it():
    base = load_policy("compute")
    limits = type(base.limits)(**{**base.limits.to_data(), "processes": 3, "scratch_bytes": 2**20, "file_bytes": 2**20})
    words = base.allow | {"processes", "scratch", "writable_code"}
    policy = base.replaced(name="every word", allow=words, limits=limits)
    few = [
        attack
        for attack in ATTACKS
        if attack.category in ("writes", "processes")
        or attack.name in ("written_code", "int_0x80", "x32", "scratch", "forks")
    ]
    tried = trial.perform(policy, few)
    assert [row for row in tried.rows if row.verdict == judgement.NOT_CONTAINED] == []
    assert {row.attack.name for row in tried.rows if row.verdict == judgement.GRANTED} <= {
        "fork", "daemon", "written_code", "kill_parent", "kill_everybody",
    }  # fmt: skip
    assert {"fork", "daemon"} <= {row.attack.name for row in tried.rows if row.verdict == judgement.GRANTED}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="calls of other architectures are x86-64's")
@pytest.mark.parametrize("profile", ["compute", "strict"])
def test_rows_show_what_they_name_and_not_a_refusal_on_the_way_there(profile):
    """Each of these once held for a reason of its own: a wrong id, memory that could not be made code."""
    names = ("changing_memory", "x32", "int_0x80")
    tried = trial.perform(load_policy(profile), [attack for attack in ATTACKS if attack.name in names])
    rows = {row.attack.name: row for row in tried.rows}
    assert {name: row.verdict for name, row in rows.items()} == dict.fromkeys(names, judgement.HELD)
    assert "lacks seals" in rows["changing_memory"].detail
    assert "SIGSYS" in rows["x32"].detail
    if profile == "compute":
        assert "SIGSYS" in rows["int_0x80"].detail
    else:  # strict has no code of its own to make it by
        assert rows["int_0x80"].detail == "map the code of it: EACCES"


def test_progress_names_every_attack():
    named = []
    trial.perform(load_policy("compute"), ATTACKS[:3], named.append)
    assert named == [attack.name for attack in ATTACKS[:3]]


def test_policy_that_is_not_there_exits_2():
    done = selftest("--policy", "no such profile")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no such profile" in done.stderr
    told = json.loads(selftest("--policy", "no such profile", "--json").stdout)
    assert told["outcome"] == "PolicyError"


def test_sentinels_lie_where_the_policy_shows_nothing(tmp_path, monkeypatch):
    shown, other = tmp_path / "shown", tmp_path / "other"
    for folder in (shown, other):
        folder.mkdir()
    policy = load_policy("compute").replaced(name="one folder", effects={"ReadFile": {"under": [str(shown)]}})
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(shown))
    monkeypatch.setattr(os.path, "expanduser", lambda _path: str(other))
    monkeypatch.setattr(trial, "_PLACES", ())
    monkeypatch.setattr(trial, "_PLACE_BYTES_MAX", 1000)
    with trial._place(policy) as folder:
        assert folder.startswith(f"{other}/")
    monkeypatch.setattr(os.path, "expanduser", lambda _path: str(shown))
    monkeypatch.chdir(shown)
    with pytest.raises(UserError, match="no folder for sentinels"), trial._place(policy):
        pass
