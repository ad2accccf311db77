"""Other interpreters on this machine, and a venv for each: what test_pythons.py and test_compatibility.py share.

Reads:    PATH and ~/.pyenv/versions/. Writes: build/pythons/<version>/ (made anew when its stamp does not fit).
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import set_up  # noqa: E402  (scripts/ is no package)

VERSIONS = ((3, 11), (3, 12), (3, 13))
VENVS = ROOT / "build" / "pythons"
QUESTION = "import sys; print(*sys.version_info[:2], sys.implementation.name, sys.executable)"
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis", "hatchling", "editables")
"""Of the extra `test`: what tests/conftest.py and a few test files need in an editable install."""


def find() -> dict[tuple[int, int], str]:
    """(3, 12) -> path of the first CPython of that version that starts: names on PATH, then pyenv's."""
    found: dict[tuple[int, int], str] = {}
    for major, minor in VERSIONS:
        name = f"python{major}.{minor}"
        for path in (name, *sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{major}.{minor}*/bin/{name}")))):
            # Asked itself: a pyenv shim may exist for a version that is not chosen, and then does not start.
            try:
                done = subprocess.run([path, "-I", "-c", QUESTION], capture_output=True, text=True, timeout=30, check=False)
            except OSError:
                continue
            if done.stdout.startswith(f"{major} {minor} cpython "):
                found[major, minor] = done.stdout.split(maxsplit=3)[3].strip()
                break
    return found


def has_regression_tests(python: str | Path) -> bool:
    """True when CPython's own tests are installed with this interpreter."""
    return subprocess.run([python, "-I", "-c", "import test.test_json"], capture_output=True, check=False).returncode == 0


def venv_for(python: str, extras: Iterable[str] = ()) -> Path:
    """The Python of a venv with fxcell as an editable install, its libraries, what runs tests, and these extras.

    Raises: subprocess.CalledProcessError - no venv can be made, or a library can neither be found nor built.
    """
    wanted = requirements([*extras])
    version = subprocess.run([python, "-I", "-VV"], capture_output=True, text=True, check=True).stdout
    stamp_text = "\n".join([version, python, str(ROOT), *wanted])
    venv = VENVS / "".join(c if c.isalnum() or c == "." else "-" for c in version.split()[1])
    own, stamp = venv / "bin" / "python", venv / "complete.stamp"
    if stamp.is_file() and stamp.read_text() == stamp_text:
        return own
    print(f"set-up: {venv.relative_to(ROOT)}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
    set_up.install_libraries(wanted, own)
    pip = [own, "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--no-index", "--editable", ROOT], check=True)
    subprocess.run([own, "-c", set_up.PROOF_IMPORTS], check=True, cwd=venv)
    stamp.write_text(stamp_text)
    return own


def requirements(extras: list[str]) -> list[str]:
    """What pyproject.toml lists for the package and these extras, and TEST_TOOLS."""
    tools = [line for line in set_up.requirements(["test"]) if line.split(">")[0].strip() in TEST_TOOLS]
    return list(dict.fromkeys([*set_up.requirements(extras), *tools]))


def write_report(target: Path, reports: Iterable[Path]) -> None:
    """Put pytest's XML reports of several runs into one."""
    whole = ET.Element("testsuites")
    for report in reports:
        if report.is_file() and report.stat().st_size:
            whole.extend(ET.parse(report).getroot().iter("testsuite"))
    ET.ElementTree(whole).write(target)


def report_of(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """(FILE of --report=FILE or None, the other arguments)."""
    named = [Path(a.removeprefix("--report=")) for a in arguments if a.startswith("--report=")]
    return (named[-1] if named else None), [a for a in arguments if not a.startswith("--report=")]


def pytest_of(python: Path) -> str:
    """Its pytest program: `python -m pytest` would put the current folder first on the path."""
    return shutil.which("pytest", path=str(python.parent)) or f"{python.parent}/pytest"
