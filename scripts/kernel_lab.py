"""`make test-kernel`: the core of the tests in a virtual machine, on Debian's own kernel with cgroup v2 and Landlock ABI 2.

Run by:   .venv/bin/python scripts/kernel_lab.py [--report=FILE] [--kernel=PACKAGE] [--only=root|user] [--short] [pytest arguments]
Does:     makes kernel and initramfs (scripts/kernel_image.py), boots them in qemu under software emulation (-accel tcg: no
          /dev/kvm needed, 10 to 20 times slower than the machine itself), shows the guest's console, and ends qemu.
          In the guest tests/kernels/guest.py runs what tests/kernels/core.toml names, as root and as an ordinary user.
Reads:    the guest's verdict from its second serial port: the pytest reports, and `exit N` as its last line. A guest that
          never says so (a panic, a hang) has failed.
Exit:     the guest's; 124 after an hour, with --short after ten minutes; 0 with a plain sentence where the image cannot be
          made (not root, no apt-get).
Options:  --kernel  a Debian kernel package that apt knows, or a metapackage (default: linux-image-amd64)
          --report  where to write both runs' results as one JUnit XML file
          --only    one of the two runs
          --short   the layers alone: a worker of each profile, its group, `fxcell doctor` and `fxcell selftest` (5 minutes)
"""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import kernel_image

TIMEOUT_S, SHORT_TIMEOUT_S = 3600, 600
SHORT = ["-k", "guest_core and not hundred"]
MEMORY_MIB = 2560
"""The initramfs is there twice for a moment, and one test's plugin may use 512 MiB."""
CPU = "Nehalem,+rdrand"
"""numpy's wheels need x86-64-v2, which this is; wider vectors are slower under emulation. rdrand fills the kernel's pool of
random numbers, which Python waits for at its start."""


def main() -> int:
    """Build, boot, report; exit code for the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path)
    parser.add_argument("--kernel", default="linux-image-amd64")
    parser.add_argument("--only", choices=("root", "user"))
    parser.add_argument("--short", action="store_true")
    options, pytest_arguments = parser.parse_known_args()
    pytest_arguments += SHORT if options.short else []
    began = time.monotonic()
    try:
        kernel_image.install_tools()
        kernel = kernel_image.kernel(options.kernel)
        initramfs = kernel_image.initramfs(kernel_image.root_archive())
    except kernel_image.CannotBuild as reason:
        print(f"skipped: no kernel lab here: {reason}")
        return 0
    print(f"kernel lab: {kernel.parent.name}, image ready after {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    channel = kernel_image.LAB / "guest.out"
    channel.write_bytes(b"")
    timeout_s = SHORT_TIMEOUT_S if options.short else TIMEOUT_S
    code = boot(kernel, initramfs, channel, guest_words(options.only, pytest_arguments), timeout_s)
    said = channel.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    if options.report:
        options.report.write_text(merged(said))
    verdict = re.search(r"^exit (\d+)\s*\Z", said, re.MULTILINE)
    if code == 0:
        code = int(verdict[1]) if verdict else 1
        if verdict is None:
            print("kernel lab: the guest ended without a verdict")
    print(f"kernel lab: exit {code} after {time.monotonic() - began:.0f} s in the virtual machine", flush=True)
    return code


def guest_words(only: str | None, pytest_arguments: list[str]) -> str:
    """What the guest must know, for the kernel's command line: words after `--` become arguments of init."""
    words = [only or "both", *pytest_arguments]
    return " ".join(word.replace(" ", "\\040") for word in words)


def boot(kernel: Path, initramfs: Path, channel: Path, words: str, timeout_s: float) -> int:
    """Run the machine until it powers off; 0, or 124 when it had to be ended."""
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(min(2, os.cpu_count() or 1)),
        "-m", str(MEMORY_MIB), "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-chardev", f"file,id=results,path={channel}", "-serial", "chardev:results",
        "-kernel", kernel, "-initrd", initramfs,
        # mitigations=off: they cost time and protect nothing here. loglevel=3: no line for each process out of memory.
        "-append", f"console=ttyS0 loglevel=3 panic=-1 mitigations=off -- {words}",
    ]  # fmt: skip
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        return _show_until_the_end(machine, timeout_s)
    finally:
        if machine.poll() is None:
            machine.send_signal(signal.SIGKILL)
        machine.wait()


def _show_until_the_end(machine: subprocess.Popen[bytes], timeout_s: float) -> int:
    end = time.monotonic() + timeout_s
    console = machine.stdout
    assert console is not None
    while (left := end - time.monotonic()) > 0:
        if not select.select([console], [], [], left)[0]:
            break
        data = os.read(console.fileno(), 1 << 16)
        if not data:
            return 0
        sys.stdout.write(data.decode("utf-8", "replace").replace("\r", ""))
        sys.stdout.flush()
    print(f"\nkernel lab: not ready after {timeout_s} s; ended", flush=True)
    return 124


def merged(said: str) -> str:
    """The reports of both runs as one document. What is no whole report is left out: the verdict tells of it."""
    suites = ET.Element("testsuites")
    for text in re.findall(r"^<testsuites.*?</testsuites>", said, re.MULTILINE | re.DOTALL):
        suites.extend(ET.fromstring(text))
    return ET.tostring(suites, encoding="unicode")


if __name__ == "__main__":
    sys.exit(main())
