"""The probe: what it says of this machine is true, and it leaves nothing behind."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fxcell.sandbox import probe
from fxcell.sandbox.kernel import landlock
from tests import leaks


def test_probe_says_what_this_machine_is():
    found = probe.look()
    assert (found.system, found.machine, found.kernel) == ("linux", platform.machine(), platform.release())
    assert found.python == platform.python_version()
    assert found.uid == os.geteuid()


def test_probe_leaves_nothing_and_changes_nothing():
    before = {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in os.listdir("/proc/self/ns")}
    with leaks.assert_nothing_left():
        for _ in range(3):
            probe.look()
    assert {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in os.listdir("/proc/self/ns")} == before


def test_workers_of_root_have_a_user_of_their_own_and_others_their_own():
    found = probe.look()
    if os.geteuid() == 0:
        last = Path("/proc/self/uid_map").read_text().split()[-1]
        assert found.outside_uid != 0 or last == "1"  # 0 only where there is no other
    else:
        assert found.outside_uid == os.geteuid()


def test_probe_is_plain_data_that_goes_over_the_wire():
    found = probe.look()
    assert probe.Probe(**found.to_data()) == found


def test_refused_namespaces_are_told_in_words(monkeypatch):
    from fxcell.policies.errors import KernelRefused

    def refuse(names):
        raise KernelRefused("unshare user mount namespaces", 1, "unshare")

    monkeypatch.setattr(probe.namespaces, "unshare", refuse)
    assert "could not unshare user mount namespaces: unshare answered EPERM" in probe.look().namespaces_error


def test_namespaces_that_end_the_trial_process_are_told(monkeypatch):
    monkeypatch.setattr(probe, "_sequence", lambda: os.kill(os.getpid(), 9))
    assert "status 9" in probe.look().namespaces_error


def test_landlock_that_is_off_is_version_0(monkeypatch):
    def refuse(*_):
        raise OSError("no such call")

    monkeypatch.setattr(landlock.libc, "syscall", refuse)
    assert probe.look().landlock_abi == 0


def test_user_namespaces_switched_off_refuse_every_worker_with_the_fix(tmp_path):
    """In a user namespace of our own, where the limit on further ones can be set to 0."""
    script = tmp_path / "start.py"
    script.write_text(
        "from fxcell import *\n"
        "open('/proc/sys/user/max_user_namespaces', 'w').write('0')\n"
        "try:\n    FX.StartWorkerProcess() | run\n"
        "except IsolationUnavailable as refusal:\n    print(refusal.layer, '|', refusal.cause, '|', refusal.fix)\n"
        "else:\n    print('started')\n"
        "worker = FX.StartWorkerProcess(policy='trusted') | run\n"
        "print(FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content='trusted starts')) | run)\n"
    )
    probe_of_tool = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
    )
    if probe_of_tool.returncode:
        pytest.skip(
            f"unshare(1) cannot make the namespaces for this test here: {probe_of_tool.stderr.decode().strip()}"
        )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", sys.executable, script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    layer, cause, fix = done.stdout.splitlines()[0].split(" | ")
    assert layer == "namespaces", done
    assert "ENOSPC" in cause or "28" in cause
    assert "max_user_namespaces" in fix
    assert "trusted starts" in done.stdout
