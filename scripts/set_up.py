"""Make a checkout usable: system packages, .venv, every library that demo, tests and lint need.

Run by:   python3.11 scripts/set_up.py [--extra NAME]...   (the Makefile does it; standard library only)
Reads:    pyproject.toml. As root it may call apt-get; otherwise it prints the one command to run and exits 1.
Writes:   .venv/ (editable install of the checkout, and a stamp for each finished part), build/wheels/ (every library as
          a wheel: a second venv, such as that of the ordinary user in `make test`, downloads and compiles nothing).
Again:    nothing to do while the stamp fits: pyproject.toml, this file, the interpreter, the place of the checkout.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
WHEELS = ROOT / "build" / "wheels"
PIP = [VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "-qq"]
OFFLINE_INSTALL = [*PIP, "install", "--no-index", "--find-links", WHEELS]
DEFAULT_EXTRAS = ("images", "test")
# Programs that an extra makes use of, and Debian's names for them. What needs one does without where it is missing.
PROGRAMS = {"bench": {"bwrap": "bubblewrap", "firejail": "firejail"}}
# Imported at the end: each one needs something outside its wheel (a system library, a compiler, this processor).
PROOF_IMPORTS = "import capnp, prctl, pyseccomp, fxcell"


def main() -> int:
    """Set up if anything changed; exit code for the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", action="append", default=[], help="one more extra of pyproject.toml, such as bench")
    wanted_extras = parser.parse_args().extra
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "set-up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits and finds the stamp
        try:
            if not stamp_fits("base") or not venv_starts() or not library_loads():
                missing = missing_packages()
                if missing and not install_system_packages(missing):
                    return 1
                build_venv()
                write_stamp("base")
            for extra in wanted_extras:
                if not stamp_fits(extra):
                    offer_programs(extra)
                    install_libraries(requirements([extra]))
                    write_stamp(extra)
        except subprocess.CalledProcessError as error:
            print(f"set-up failed: {' '.join(map(str, error.cmd))} ended with {error.returncode}", file=sys.stderr)
            return 1
    return 0


def stamp_fits(name: str) -> bool:
    """True when this part of .venv was made from what is here now."""
    stamp = VENV / f"set-up-{name}.stamp"
    return stamp.is_file() and stamp.read_text() == fingerprint()


def write_stamp(name: str) -> None:
    """Say that this part of .venv is complete."""
    (VENV / f"set-up-{name}.stamp").write_text(fingerprint())


def fingerprint() -> str:
    """Hash of all that decides what .venv holds. A venv does not survive a move of the checkout: the place counts."""
    digest = hashlib.sha256()
    for part in (
        (ROOT / "pyproject.toml").read_bytes(),
        Path(__file__).read_bytes(),
        sys.version.encode(),
        os.path.realpath(sys.executable).encode(),
        str(ROOT).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def venv_starts() -> bool:
    """True when .venv's interpreter is there and starts (it is a link that an upgrade of Python can break)."""
    try:
        return subprocess.run([VENV_PYTHON, "-I", "-S", "-c", ""], check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def requirements(extras: list[str]) -> list[str]:
    """What pyproject.toml lists for the package and these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"]]
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return list(dict.fromkeys(found))


# --- system packages ---


def missing_packages() -> list[str]:
    """Debian names of what this machine lacks, found by trying the thing itself, not by asking dpkg."""
    missing = []
    version = f"python3.{sys.version_info.minor}"
    if not library_loads():
        missing.append("libseccomp2")
    if importlib.util.find_spec("ensurepip") is None:
        missing.append(f"{version}-venv")
    if any(WHEELS.glob(f"python_prctl-*-cp3{sys.version_info.minor}-*.whl")):
        return missing  # the only library without a wheel is compiled already
    # distutils and setuptools call the compiler that built this interpreter.
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        missing += ["gcc", "libc6-dev"]
    elif not header_found(compiler, "stdio.h"):
        missing.append("libc6-dev")
    if not header_found(compiler, "sys/capability.h"):
        missing.append("libcap-dev")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append(f"{version}-dev")
    return missing


def offer_programs(extra: str) -> None:
    """Install the programs of an extra as root; otherwise, or where that fails, say what is missing and go on."""
    missing = [package for program, package in PROGRAMS.get(extra, {}).items() if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None or not install_system_packages(missing):
        print(f"set-up: going on without {', '.join(missing)} (Debian's names)", file=sys.stderr)


def library_loads() -> bool:
    """True when the dynamic linker finds libseccomp."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return False
    return True


def header_found(compiler: str, header: str) -> bool:
    """True when the compiler, or without one the usual folder, has this C header."""
    if shutil.which(compiler) is None:
        return Path("/usr/include", header).is_file()
    source = f"#include <{header}>\n"
    done = subprocess.run([compiler, "-E", "-x", "c", "-"], input=source, capture_output=True, text=True, check=False)
    return done.returncode == 0


def install_system_packages(packages: list[str]) -> bool:
    """Install with apt-get as root; otherwise print the one command. False: the person must act first."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        print(f"This machine has no apt-get. Install what Debian calls: {' '.join(packages)}", file=sys.stderr)
        return False
    interpreter = os.path.realpath(sys.executable)
    if f"python3.{sys.version_info.minor}-dev" in packages and not interpreter.startswith("/usr/bin/"):
        print(f"{interpreter} has no Python.h, and no Debian package adds it to this interpreter.", file=sys.stderr)
        print("Choose another one: make PYTHON=/usr/bin/python3.11 ...", file=sys.stderr)
        return False
    if os.geteuid() != 0:
        print("fxcell needs these system packages first. Run this, then the same make again:\n", file=sys.stderr)
        print("    sudo " + " ".join(command) + "\n", file=sys.stderr)
        return False
    print(f"set-up: installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    waiting = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-q"]  # seconds; another apt may be running
    for attempt in ("lists as they are", "fresh lists"):
        if attempt == "fresh lists":
            subprocess.run([*waiting, "update"], env=environment, stdin=subprocess.DEVNULL, check=False)
        done = subprocess.run([*waiting, *command[1:]], env=environment, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            return True
    print(f"apt-get could not install {' '.join(packages)}; see its words above", file=sys.stderr)
    return False


# --- the venv ---


def build_venv() -> None:
    """Make .venv anew, with the libraries and an editable install of the checkout."""
    print(f"set-up: .venv with Python {sys.version.split()[0]}", flush=True)
    # --clear: a venv of another interpreter, or half of one, is not worth repairing.
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    print("set-up: libraries (about 100 MB the first time)", flush=True)
    install_libraries(requirements([*DEFAULT_EXTRAS]))
    subprocess.run([*OFFLINE_INSTALL, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    subprocess.run([VENV_PYTHON, "-c", PROOF_IMPORTS], check=True, cwd=VENV)
    print("set-up: done", flush=True)


def install_libraries(wanted: list[str], python: Path = VENV_PYTHON) -> None:
    """Fill build/wheels, then the venv of this Python from it alone."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    pip = [python, *PIP[1:]]
    # PEP 517: Debian's pip would otherwise call setup.py with a setuptools that has no `wheel` beside it.
    building = [*pip, "wheel", "--use-pep517", "--find-links", WHEELS, "--wheel-dir", WHEELS]
    subprocess.run([*building, *wanted], check=True)
    subprocess.run([*pip, "install", "--no-index", "--find-links", WHEELS, *wanted], check=True)


if __name__ == "__main__":
    sys.exit(main())
