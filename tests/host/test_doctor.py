"""`fxcell doctor`: true on this machine, true on machines that lack something, and never a failure of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fxcell import load_policy
from fxcell.host import doctor, doctor_fixes, doctor_machine, sessions, shutdown
from fxcell.host.commands.doctor import last_line, run_doctor
from fxcell.host.doctor_machine import State
from fxcell.policies.crash import Evidence, Reason, WorkerCrash
from fxcell.policies.errors import IsolationUnavailable
from fxcell.sandbox import plan
from fxcell.sandbox.probe import Probe
from tests.leaks import assert_nothing_left
from tests.programs.without_layers import run_without

pytestmark = pytest.mark.slow  # a host of its own for most of them
ROW_KEYS = {"group", "name", "needs", "state", "found", "cause", "fix"}
DOCTOR = [sys.executable, "-m", "fxcell", "doctor"]


def doctor_without(words, *options):
    """(exit code, the report as JSON) on a machine without these layers."""
    process = run_without(
        words, [*DOCTOR, "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    output, errors = process.communicate(timeout=100)
    assert errors == ""
    return process.returncode, json.loads(output)


def rows_of(report):
    return {row["name"]: row for row in report["rows"]}


@pytest.fixture(scope="module")
def here():
    report = doctor.examine(load_policy("compute"))
    shutdown()
    return report


def test_whole_machine_holds_every_layer_as_a_worker_read_it_back(here):
    if here.tier != "full":
        pytest.skip(f"this machine reaches only the tier {here.tier}")
    assert here.reached
    for layer in plan.LAYERS:
        row = here.row(layer)
        assert (row.state, row.cause, row.fix) == (State.HOLDS, "", ""), row
        assert row.found
        assert row.needs


def test_session_keeps_what_its_worker_read_back():
    session = sessions.Session(load_policy("compute"))
    assert tuple(sorted(session.enforced)) == tuple(sorted(session.layers))
    assert session.plan.layers == session.layers
    assert session.probe.kernel == os.uname().release
    assert session.enforced.get("landlock", {}).get("abi", 0) in (0, session.probe.landlock_abi)
    session.stop()


def test_json_is_stable_and_has_no_row_without_a_state(here):
    told = json.loads(json.dumps(here.to_dict()))
    assert set(told) == {"fxcell", "policy", "accepts", "tier", "reached", "rows", "notes"}
    for row in told["rows"]:
        assert set(row) == ROW_KEYS
        assert row["state"] in list(State)
        assert not (row["state"] == "missing" and not row["fix"])
    names = [row["name"] for row in told["rows"]]
    assert len(names) == len(set(names))
    assert {*plan.LAYERS, *doctor_machine.QUESTIONS} <= set(names)


def test_command_prints_a_table_and_the_tier_in_the_last_line(capsys):
    with assert_nothing_left():
        code = run_doctor("strict", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert code in (0, 1)
    assert lines[-1].startswith("Tier of this machine: ")
    assert "Policy 'strict' accepts full: " in lines[-1]
    for name in ("landlock", "seccomp", "cgroup memory", "processors", "libseccomp"):
        assert any(name in line for line in lines), name


def test_policy_that_cannot_be_used_is_usage():
    done = subprocess.run([*DOCTOR, "--policy", "no-such"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no-such" in done.stderr


def test_refused_namespaces_are_told_with_the_kernels_answer_and_flags_for_containers():
    code, report = doctor_without(["no-user-namespaces"])
    assert (code, report["reached"]) == (1, False)
    closed = os.geteuid() == 0 and rows_of(report)["landlock"]["state"] == "unproven"  # the interpreter, to other users
    assert report["tier"] == ("trusted" if closed else "unprivileged")
    rows = rows_of(report)
    for layer in ("namespaces", "minimal_root"):
        assert rows[layer]["state"] == "missing"
        assert "unshare answered EPERM" in rows[layer]["cause"]
        # A filter holds for this process already, which is what containers do: so those flags are told.
        for text in ("docker run --security-opt seccomp=unconfined", "podman run", 'isolation = "unprivileged"'):
            assert text in rows[layer]["fix"]
    if not closed:
        assert rows["landlock"]["state"] == "holds"
        assert "tier unprivileged" in rows["landlock"]["found"]


def test_policy_that_accepts_less_is_reached_without_namespaces(tmp_path):
    policy = tmp_path / "less.toml"
    policy.write_text('extends = "compute"\nisolation = "unprivileged"\n')
    code, report = doctor_without(["no-user-namespaces"], "--policy", str(policy))
    if report["tier"] == "trusted":
        assert rows_of(report)["privileges"]["state"] == "missing"
        pytest.skip("the interpreter is closed to the user that root's workers become here")
    assert (code, report["tier"], report["reached"]) == (0, "unprivileged", True)
    states = {row["name"]: row["state"] for row in report["rows"] if row["group"] == "layer"}
    assert states == dict.fromkeys(plan.UNPRIVILEGED_LAYERS, "holds") | dict.fromkeys(
        ("namespaces", "minimal_root"), "missing"
    )
    assert any("no namespaces" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("word", "row", "cause", "fix"),
    [
        ("no-mount", "namespaces", "mount answered EPERM", "apparmor"),
        ("no-landlock", "landlock", "offers no Landlock", "lsm="),
        ("no-notify", "seccomp", "no user notification", "Linux 5.0"),
        ("no-listener", "seccomp", "answered EBUSY", "listener"),
    ],
)
def test_missing_layer_is_named_with_cause_and_fix_and_exit_code_1(word, row, cause, fix):
    code, report = doctor_without([word])
    found = rows_of(report)[row]
    assert (code, found["state"]) == (1, "missing"), found
    assert cause in found["cause"]
    assert fix.lower() in found["fix"].lower()
    assert report["tier"] in ("unprivileged", "trusted")
    assert not [row for row in report["rows"] if row["state"] == "error"]


def test_old_landlock_is_reached_with_what_it_lacks_in_the_notes():
    code, report = doctor_without(["landlock-abi=2"])
    assert (code, report["tier"]) == (0, "full")
    assert "ABI 2" in rows_of(report)["landlock"]["found"]
    assert any("TCP" in note for note in report["notes"])


def test_nothing_there_at_all_still_answers():
    code, report = doctor_without(["no-user-namespaces", "no-landlock", "no-notify"], "--policy", "trusted")
    assert (code, report["tier"], report["accepts"]) == (0, "trusted", "trusted")
    states = {row["name"]: row["state"] for row in report["rows"] if row["group"] == "layer"}
    assert states["limits"] == states["hygiene"] == "holds"
    assert states["namespaces"] == states["landlock"] == states["seccomp"] == "missing"


def test_missing_module_to_preload_is_a_row_of_the_policy():
    report = doctor.examine(load_policy("compute").replaced(name="wants-more", preload=("no_such_module",)))
    shutdown()
    row = report.row("preload")
    assert (row.group, row.state, report.reached) == ("policy", State.MISSING, False)
    assert "no_such_module" in row.cause
    assert "install it" in row.fix
    assert report.tier == "full" or report.row("namespaces").state is State.MISSING


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "too many open files"),
        IsolationUnavailable("limits", "the cgroup is full", "empty it"),
        WorkerCrash(Reason.START_FAILED, "it ended", Evidence()),
        ValueError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_start_that_fails_in_any_way_is_a_row(monkeypatch, error):
    def fail(_policy):
        raise error

    monkeypatch.setattr(sessions, "Session", fail)
    report = doctor.examine(load_policy("compute"))
    assert (report.tier, report.reached) == ("none", False)
    layer = "limits" if isinstance(error, IsolationUnavailable) else "start"
    assert report.row(layer).state is State.MISSING
    cause = error.cause if isinstance(error, IsolationUnavailable) else str(error)
    assert cause in report.row(layer).cause
    assert report.row(layer).fix
    assert "none" in last_line(report)
    assert {"Python", "libraries", "processors"} <= {row.name for row in report.rows}


def test_question_that_fails_is_a_row_and_the_others_are_answered(monkeypatch):
    def fail(_probe):
        raise RuntimeError("nobody knows")

    monkeypatch.setattr(doctor_machine, "QUESTIONS", dict.fromkeys(doctor_machine.QUESTIONS, fail))
    report = doctor.examine(load_policy("trusted"))
    shutdown()
    assert report.reached
    for name in doctor_machine.QUESTIONS:
        assert (report.row(name).state, report.row(name).cause) == (State.ERROR, "RuntimeError: nobody knows")


def probe(**changes):
    values = {
        "system": "linux", "machine": "x86_64", "kernel": "6.8.0", "python": "3.12.3", "uid": 1000, "outside_uid": 1000,
        "landlock_abi": 4, "seccomp_notify": True, "namespaces_error": "could not map: EPERM",
    }  # fmt: skip
    return Probe(**values | changes)


SETTINGS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces="),
    "/proc/sys/user/max_mnt_namespaces": ("0", "sysctl -w user.max_mnt_namespaces="),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "      userns,\n"),
    "/proc/1/cgroup": ("0::/docker/123", "docker run --security-opt"),
    "/proc/self/status": ("Name:\tx\nSeccomp:\t2\n", "podman run"),
}


@pytest.mark.parametrize("path", SETTINGS)
def test_the_setting_that_stands_in_the_way_is_the_one_that_is_told(monkeypatch, path):
    monkeypatch.setattr(doctor_fixes, "read", lambda asked: SETTINGS[path][0] if asked == path else "")
    monkeypatch.setattr(doctor_fixes.os.path, "exists", lambda _: False)
    fix = doctor_fixes.namespaces(probe())
    assert SETTINGS[path][1] in fix
    alike = {"/proc/1/cgroup", "/proc/self/status"}  # both mean a container
    others = {text for other, (_, text) in SETTINGS.items() if other != path and not {other, path} <= alike}
    assert not [text for text in others if text in fix]
    assert fix.endswith('isolation = "unprivileged" in the policy')


def test_apparmor_profile_names_this_interpreter_and_can_be_written_as_it_stands(monkeypatch):
    monkeypatch.setattr(doctor_fixes, "read", lambda asked: "1" if "apparmor" in asked else "")
    monkeypatch.setattr(doctor_fixes.os.path, "exists", lambda _: False)
    lines = [line.strip() for line in doctor_fixes.namespaces(probe()).splitlines()]
    start = lines.index("abi <abi/4.0>,")
    assert lines[start + 2] == f"profile fxcell {os.path.realpath(sys.executable)} flags=(unconfined) {{"
    assert lines[start + 3 : start + 6] == ["userns,", "include if exists <local/fxcell>", "}"]


def test_missing_cgroup_is_weaker_with_what_stands_in_and_the_line_to_run(monkeypatch):
    monkeypatch.setattr(doctor_machine.cgroups, "places", dict)
    monkeypatch.setattr(
        doctor_machine.cgroups, "missing", lambda: "memory: not delegated; pids: not mounted\nsystemd-run …"
    )
    memory, tasks = (next(iter(doctor_machine.QUESTIONS[name](None))) for name in ("cgroup memory", "cgroup pids"))
    assert (memory.state, memory.cause, tasks.cause) == (State.WEAKER, "not delegated", "not mounted")
    assert "RLIMIT_DATA" in memory.found
    assert "Delegate=yes" in memory.fix
