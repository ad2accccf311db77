"""FXCELL_REQUIRE=full: skips that hide a missing layer are failures, harmless ones are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import required

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("reason", "uid", "failure"),
    [
        ("user namespaces are refused: EPERM", 1000, True),
        ("this kernel has no Landlock", 0, True),
        ("needs seccomp user notification", 0, True),
        ("this machine reaches only the tier unprivileged", 0, True),
        ("needs a memory cgroup that this process may use", 0, True),
        ("needs a memory cgroup that this process may use", 65534, False),
        ("this Python has no AF_BLUETOOTH", 0, False),
        ("numbers and machine code of x86-64", 0, False),
        ("needs a C compiler (gcc or cc)", 0, False),
        ("needs root; this is uid 65534", 65534, False),
    ],
)
def test_skip_is_a_failure_when_a_layer_is_missing(reason, uid, failure):
    assert required.is_failure(reason, uid) is failure


def test_machine_has_what_is_required_here():
    lacks = required.missing()
    print("missing:", lacks or "nothing")
    assert not (required.everything() and lacks), lacks


@pytest.mark.parametrize(("value", "code"), [("full", 1), ("", 0)])
def test_run_with_such_a_skip_fails_only_where_everything_is_required(tmp_path, value, code):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_layer():\n    pytest.skip('no Landlock here')\n"
        "def test_family():\n    pytest.skip('this Python has no AF_TIPC')\n"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", tmp_path,
            "-c", tmp_path / "pytest.ini", tmp_path,
        ],
        cwd=ROOT, env={**os.environ, required.VARIABLE: value}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert "AF_TIPC" in done.stdout
    assert ("1 failed, 1 skipped" if code else "2 skipped") in done.stdout
