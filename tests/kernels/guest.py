"""Process 1 of the kernel lab's virtual machine: mounts what a system has, runs the tests, powers off.

Run by:   guest_init.sh, as `python guest.py root|user|both [pytest arguments]`; a space in an argument comes as \\040
Does:     runs what core.toml names, at the same time as root and as uid 1000, each alone in a group of cgroup v2 that is
          delegated to it (owned by it, as cgroups(7) has it): what `systemd-run --user --scope -p Delegate=yes` gives.
          The user's output comes when they end, among root's.
Writes:   the console (first serial port): pytest's own words. Second serial port: each run's JUnit XML, then `exit N`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import tomllib
import traceback
import tty
from pathlib import Path

CHECKOUT = Path("/opt/checkout")
PYTHON = "/opt/venv/bin/python"
UID = 1000
GROUPS = Path("/sys/fs/cgroup")
RESULTS = "/dev/ttyS1"
MOUNTS = (
    ("proc", "/proc", "nosuid,nodev,noexec"),
    ("sysfs", "/sys", "nosuid,nodev,noexec"),
    ("devpts", "/dev/pts", "nosuid,noexec,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "nosuid,nodev,mode=1777"),
    ("tmpfs", "/tmp", "nosuid,nodev,mode=1777"),
    ("tmpfs", "/run", "nosuid,nodev,mode=755"),
    ("cgroup2", str(GROUPS), "nosuid,nodev,noexec,nsdelegate"),
)
TEST_TIMEOUT_S = 400
"""For one test; everything takes 10 to 20 times longer here."""
_POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF, reboot(2)


def main() -> None:
    """Never returns: the machine is off afterwards."""
    code = 1
    try:
        set_up()
        which, *arguments = [word.replace("\\040", " ") for word in sys.argv[1:]] or ["both"]
        code = run([who for who in ("root", "user") if which in (who, "both")], arguments)
    except BaseException:
        traceback.print_exc()
    with open(RESULTS, "w") as results:
        results.write(f"exit {code}\n")
    time.sleep(0.2)  # the serial port sends what it holds
    ctypes.CDLL(None).reboot(_POWER_OFF)


def set_up() -> None:
    """Mounts, loopback, the user, the two groups; and one line that says what this is."""
    for kind, folder, options in MOUNTS:
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "-t", kind, "-o", options, kind, folder], check=True)
    os.symlink("/proc/self/fd", "/dev/fd")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open("/etc/passwd", "a") as users:
        users.write(f"lab:x:{UID}:{UID}::/home/lab:/bin/sh\n")
    for name in ("/root", "/home/lab"):
        os.makedirs(f"{name}/tmp", exist_ok=True)
        for folder in (name, f"{name}/tmp"):
            os.chown(folder, *([0, 0] if name == "/root" else [UID, UID]))
            os.chmod(folder, 0o755)  # workers of root have another id, and must reach what tests put there
    (GROUPS / "cgroup.subtree_control").write_text("+memory +pids")
    delegate(GROUPS / "root", 0)
    delegate(GROUPS / "user", UID)
    with open(RESULTS) as results:
        tty.setraw(results.fileno())
    layers = Path("/sys/kernel/security/lsm")
    subprocess.run(["mount", "-t", "securityfs", "none", "/sys/kernel/security"], check=False)
    print(
        f"guest: Linux {os.uname().release}, Python {sys.version.split()[0]}, cgroup v2 with"
        f" {(GROUPS / 'cgroup.controllers').read_text().strip()}; {layers.read_text() if layers.exists() else ''};"
        f" {time.clock_gettime(time.CLOCK_BOOTTIME):.0f} s after power on"
    )


def delegate(group: Path, uid: int) -> None:
    """Make a group that belongs to this user."""
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "cgroup.threads"):
        os.chown(path, uid, uid)


def run(names: list[str], arguments: list[str]) -> int:
    """The test runs, all at once; the first exit code that is not 0."""
    began = time.monotonic()
    running = {start(who, arguments, to_console=who == names[0]): who for who in names}
    codes = {}
    while running:
        pid, status = os.wait()  # as process 1 this one also reaps whoever has no parent any more
        if pid in running:
            who = running.pop(pid)
            codes[who] = os.waitstatus_to_exitcode(status) & 0xFF
            print(f"\nguest: {who}: exit {codes[who]} after {time.monotonic() - began:.0f} s", flush=True)
            if who != names[0]:
                print(f"\n== tests as {who}\n{Path(f'/run/{who}.txt').read_text(errors='replace')}", flush=True)
    for who in names:
        with open(RESULTS, "w") as results:
            results.write(Path(f"/run/{who}.xml").read_text() + "\n")
    return next((code for code in codes.values() if code), 0)


def start(who: str, arguments: list[str], *, to_console: bool) -> int:
    """One pytest run; its process id. Arguments that name tests replace the selection of core.toml."""
    table = tomllib.loads((CHECKOUT / "tests" / "kernels" / "core.toml").read_text())
    selected = [entry["tests"] for entry in table["run"] if who in entry.get("as", ("root", "user"))]
    left_out = [
        f"--deselect={entry['tests']}" for entry in table["leave_out"] if who in entry.get("as", ("root", "user"))
    ]
    if any(word.startswith("tests/") for word in arguments):
        selected = []
    command = [
        PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.kernels.second_try", "-q", "-rs", "--durations=15",
        f"--junitxml=/run/{who}.xml",
        "-o", f"timeout={TEST_TIMEOUT_S}", "-o", f"faulthandler_timeout={TEST_TIMEOUT_S - 30}",
        *left_out, *selected, *arguments,
    ]  # fmt: skip
    home = "/root" if who == "root" else "/home/lab"
    environment = {
        "HOME": home, "TMPDIR": f"{home}/tmp", "PATH": "/opt/venv/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8",
        "TERM": "dumb", "COLUMNS": "120", "HYPOTHESIS_STORAGE_DIRECTORY": f"{home}/hypothesis", "FXCELL_REQUIRE": "full",
        "FXCELL_EMULATED": "1",
    }  # fmt: skip
    for name in (f"/run/{who}.xml", f"/run/{who}.txt"):
        Path(name).touch()
        os.chown(name, 0 if who == "root" else UID, 0)
    if to_console:
        print(f"\n== tests as {who}", flush=True)
    child = os.fork()
    if child == 0:
        try:
            if not to_console:
                output = os.open(f"/run/{who}.txt", os.O_WRONLY)
                os.dup2(output, 1)
                os.dup2(output, 2)
            become(who)
            os.chdir(CHECKOUT)
            os.execve(PYTHON, command, environment)
        finally:
            os._exit(1)
    return child


def become(who: str) -> None:
    """In the child: go into the group, alone there; the user also gets its ids."""
    os.setsid()
    (GROUPS / who / "cgroup.procs").write_text("0")
    if who == "root":
        return
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


if __name__ == "__main__":
    main()
