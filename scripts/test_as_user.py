"""Run the tests as an ordinary user: root hides bugs (no RLIMIT_NPROC, no file permissions, every capability).

Run by:   .venv/bin/python scripts/test_as_user.py [--report=FILE] [pytest arguments], as root
Does:     copies the checkout's files (tracked, and untracked but not ignored) to a fresh temporary folder that the user
          owns, makes a venv there from build/wheels, and runs pytest as that user: no groups, no capabilities, clean
          environment, own HOME. The folder is removed afterwards.
Exit:     pytest's; 0 with a plain sentence when it must be skipped (not root, or no interpreter the user may execute).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"
sys.path.insert(0, str(ROOT / "scripts"))
import set_up  # noqa: E402  (scripts/ is no package)

# nobody. Another number, also one without a passwd entry: FXCELL_TEST_UID=61234 make test-user
UID = int(os.environ.get("FXCELL_TEST_UID", "65534"))
CANDIDATES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3")
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/python/bin")
QUESTION = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_config_var('EXT_SUFFIX'))"

PASSED_ON = ("CI", "FXCELL_REQUIRE", "FXCELL_CHAOS_COMMANDS", "FXCELL_CHAOS_SEED", "FXCELL_SOAK_CALLS", "FXCELL_WORKERS")
SAME_FOR_EVERYBODY = (
    "tests/policies",
    "tests/promises/test_no_unpickling.py",
    "tests/sandbox/test_wire.py",
    "tests/sandbox/test_wire_buffers.py",
    "tests/sandbox/test_wire_descriptors.py",
    "tests/sandbox/test_wire_fuzzing.py",
    "tests/sandbox/test_wire_pointers.py",
    "tests/host/test_policy_difference.py",
    "tests/host/test_policy_learning.py",
    "tests/host/test_policy_learning_performed.py",
    "tests/host/test_command_learn.py",
    "tests/host/test_command_replay.py",
    "tests/host/test_bad_input.py",
    "tests/host/test_calling.py",
    "tests/host/test_calling_chains.py",
    "tests/host/test_calling_failures.py",
    "tests/host/test_effects_http_limits.py",
    "tests/host/test_gates.py",
    "tests/host/test_own_effects.py",
    "tests/host/test_pool_batches.py",
    "tests/host/test_pool_batch_effects.py",
    "tests/host/test_pool_batch_memory.py",
    "tests/host/test_pool_callers.py",
    "tests/host/test_pool_closing.py",
    "tests/host/test_pool_executor.py",
    "tests/host/test_pool_misuse.py",
    "tests/host/test_pool_progress.py",
    "tests/host/test_records.py",
    "tests/host/test_session_templates.py",
    "tests/host/test_telemetry.py",
    "tests/test_benchmarks.py",
    "tests/test_examples.py",
    "tests/test_required.py",
)
"""What no privilege of the user changes; seen as root, or by whoever runs the tests, and not again."""


def main() -> int:
    """Copy, make the venv, run; exit code for the shell."""
    arguments = sys.argv[1:]
    report = next((Path(a.removeprefix("--report=")) for a in arguments if a.startswith("--report=")), None)
    arguments = [a for a in arguments if not a.startswith("--report=")]
    if os.geteuid() != 0:
        print("skipped: only root can become another user, and the tests already ran as an ordinary one")
        return 0
    python = find_python()
    if python is None:
        print(
            f"skipped: no Python >= 3.11 that uid {UID} may execute: {os.path.realpath(sys.executable)} is closed to it, "
            f"and {', '.join(FOLDERS)} hold none. With one there (Debian: python3.11) this part runs."
        )
        return 0
    os.umask(0o022)
    place = Path(tempfile.mkdtemp(prefix="user-tests-"))
    try:
        place.chmod(0o755)
        checkout, home = place / "checkout", place / "home"
        copy_checkout(checkout)
        make_venv(python, place / "venv", checkout)
        home.mkdir()
        (home / "tmp").mkdir()
        give_away(checkout, home)
        result = home / "report.xml"
        print(f"uid {UID} with {python}", flush=True)
        chosen = arguments or [f"--ignore={path}" for path in SAME_FOR_EVERYBODY]
        if not arguments:
            print(f"not again, for no privilege changes them: {', '.join(SAME_FOR_EVERYBODY)}", flush=True)
        command = [place / "venv" / "bin" / "pytest", "-rs", f"--junitxml={result}", *chosen]
        done = as_user(command, cwd=checkout, env=clean_environment(home, place / "venv"))
        if report is not None and result.is_file():
            shutil.copyfile(result, report)
        return done.returncode
    finally:
        shutil.rmtree(place)


def as_user(command: list[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command with the user's ids only. setuid drops root's capabilities with them."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, user=UID, group=UID, extra_groups=[], umask=0o022, stdin=subprocess.DEVNULL, check=False, **options
    )


def find_python() -> str | None:
    """Path of the first Python >= 3.11 the user can start; one that can use our wheels as they are comes first."""
    ours = sysconfig.get_config_var("EXT_SUFFIX")
    usable: list[tuple[bool, str]] = []
    for path in dict.fromkeys([os.path.realpath(sys.executable), *(f"{f}/{c}" for f in FOLDERS for c in CANDIDATES)]):
        try:
            done = as_user([path, "-I", "-c", QUESTION], cwd="/", env={}, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue  # not there, or below a folder closed to this user
        major, minor, suffix = [*done.stdout.split(), "0", "0", ""][:3]
        if done.returncode == 0 and (int(major), int(minor)) >= (3, 11):
            usable.append((suffix != ours, path))
    return min(usable, key=lambda entry: entry[0])[1] if usable else None


def copy_checkout(target: Path) -> None:
    """Copy what a commit of everything would hold, links as links."""
    listing = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0")
    for name in dict.fromkeys(os.fsdecode(n) for n in names if n):
        source, copy = ROOT / name, target / name
        if not os.path.lexists(source):
            continue  # deleted, not yet committed
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)


def make_venv(python: str, venv: Path, checkout: Path) -> None:
    """Root makes and keeps the venv: no test can change the libraries of the next. No index when our wheels fit."""
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "--python", venv / "bin" / "python"]
    same_abi = (
        sysconfig.get_config_var("EXT_SUFFIX")
        == subprocess.run(
            [python, "-I", "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    install = [*pip, "install", "--find-links", WHEELS, *(["--no-index"] if same_abi else [])]
    subprocess.run([*install, *set_up.requirements([*set_up.DEFAULT_EXTRAS])], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", checkout], check=True)


def give_away(*folders: Path) -> None:
    """Make the user the owner of everything below these folders."""
    for folder in folders:
        os.lchown(folder, UID, UID)
        for parent, directories, files in os.walk(folder):
            for name in (*directories, *files):
                os.lchown(os.path.join(parent, name), UID, UID)


def clean_environment(home: Path, venv: Path) -> dict[str, str]:
    """What a login of this user would have, and no more."""
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
    }


if __name__ == "__main__":
    sys.exit(main())
