"""Build the wheel and the sdist, install each in a fresh venv outside the checkout, and use what was installed.

Run by:   .venv/bin/python scripts/wheel_test.py
Checks:   the wheel holds every file of the three folders once, as a real file below fxcell/, and nothing else; the
          wheel built from the sdist holds the same; each installs without an index, loads a shipped profile, runs a
          command in a worker (what the sandbox lets the worker read is then site-packages) and answers `fxcell --help`.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"
USE = """
import pathlib, fxcell, fxcell.policies, fxcell.sandbox, fxcell.host
from fxcell.policies.loader import load_profile
from fxcell import FX, IsolationUnavailable, run
load_profile("compute")
here = pathlib.Path(fxcell.__file__).parent
assert "site-packages" in here.parts, here
assert not any(p.is_symlink() for p in here.rglob("*")), "a link in an installed package"
for bare in ("policies", "sandbox", "host"):
    assert not (here.parent / bare).exists(), f"{bare} is installed as a top-level package"
try:
    worker = FX.StartWorkerProcess() | run
    assert FX.SendCommandToWorkerProcess(process=worker, command=FX.RandomBytes(count=3)) | run
    FX.StopWorkerProcess(process=worker) | run
except IsolationUnavailable as reason:
    print(f"  no worker started, this machine cannot isolate: {reason}")
"""


def main() -> int:
    """Build, compare, install, use; exit code for the shell."""
    with tempfile.TemporaryDirectory(prefix="wheel-test-") as folder:
        place = Path(folder)
        build("--wheel", ROOT, place / "direct")
        build("--sdist", ROOT, place / "sdist")
        with tarfile.open(next((place / "sdist").iterdir())) as archive:
            links = [member.name for member in archive if member.issym() or member.islnk()]
            check("the sdist holds no links", [], links)
            # Debian 12's Python 3.11.2 has no filters yet.
            how: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(place / "unpacked", **how)
        build("--wheel", next((place / "unpacked").iterdir()), place / "from-sdist")
        for way in ("direct", "from-sdist"):
            wheel = next((place / way).iterdir())
            check(f"files of the {way} wheel", sorted(sources()), sorted(package_files(wheel)))
            use(wheel, place / f"venv-{way}")
            print(f"{way}: {wheel.name} holds {len(sources())} files, installs and runs", flush=True)
    return 0


def build(kind: str, source: Path, target: Path) -> None:
    """Build without network: hatchling is in .venv."""
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", target, source]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def sources() -> set[str]:
    """What the package must hold: every file git knows (or would add) below fxcell/ and the three folders."""
    listing = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"]
    folders = ["fxcell", "policies", "sandbox", "host"]
    names = subprocess.run([*listing, "--", *folders], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    real = [name for name in names.splitlines() if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]
    return {name if name.startswith("fxcell/") else f"fxcell/{name}" for name in real}


def package_files(wheel: Path) -> list[str]:
    """Names in a wheel without its metadata; a name held twice is in the list twice."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def check(what: str, wanted: list[str], found: list[str]) -> None:
    """Stop with the difference."""
    if wanted != found:
        lacking, surplus = set(wanted) - set(found), sorted(set(found) - set(wanted))
        sys.exit(f"wheel test failed: {what}: lacks {sorted(lacking)}, has too much {surplus or found}")


def use(wheel: Path, venv: Path) -> None:
    """Install with the wheels at hand, and run from a folder where no checkout is in reach."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "--python", venv / "bin" / "python"]
    subprocess.run([*pip, "install", "--no-index", "--find-links", WHEELS, wheel], check=True)
    subprocess.run([venv / "bin" / "python", "-W", "error", "-c", USE], check=True, cwd=venv)
    subprocess.run([venv / "bin" / "fxcell", "--help"], check=True, cwd=venv, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
