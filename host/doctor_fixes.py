"""What to change so that a layer can be had: the exact setting, as far as the machine tells which one stands in the way."""

from __future__ import annotations

import os
import re
import sys

from fxcell.sandbox.probe import Probe

LANDLOCK = (
    "boot Linux 5.13 or newer with landlock in the lsm= list of the kernel's command line (see /sys/kernel/security/lsm); "
    "in a container: a seccomp profile that lets landlock_create_ruleset through (Docker 23.0 and newer)"
)
START = "report it with the output of `fxcell doctor --json`"

_NAMESPACE_COUNTS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_TIER = 'or accept the weaker tier: isolation = "unprivileged" in the policy'


def read(path: str) -> str:
    """The text of a small file of /proc, /sys or /run; "" where it is not there or not readable."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return ""


def by_layer(layer: str, probe: Probe | None) -> str:
    """What to change for a layer that the probe found missing."""
    if layer in ("namespaces", "minimal_root"):
        return namespaces(probe)
    if layer == "landlock":
        return LANDLOCK
    if layer == "seccomp" and probe is not None and probe.listener_error:
        return (
            "start the host where no filter with a listener holds yet (LXD and other supervisors install one), and where a "
            "container's own filter lets seccomp() through:\n" + _containers()
        )
    return "use Linux 5.0 or newer with CONFIG_SECCOMP_FILTER"


def namespaces(probe: Probe | None) -> str:
    """What to change so that namespaces and mounts in them are allowed: one line or block for each thing in the way."""
    ways = [
        f"sysctl -w user.max_{name}_namespaces=15000"
        for name in _NAMESPACE_COUNTS
        if read(f"/proc/sys/user/max_{name}_namespaces") == "0"
    ]
    ordinary = probe is None or probe.uid != 0
    if ordinary and read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        ways.append(
            "sysctl -w kernel.unprivileged_userns_clone=1   (to keep it: a line in /etc/sysctl.d/60-fxcell.conf)"
        )
    if ordinary and read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        ways.append(_apparmor())
    if container_hints() or re.search(r"^Seccomp:\s*2", read("/proc/self/status"), re.MULTILINE):
        ways.append(_containers())
    if not ways:
        # Nothing here says what refuses: everything that is known to.
        ways = [
            "sysctl -w user.max_user_namespaces=15000",
            "sysctl -w kernel.unprivileged_userns_clone=1   (Debian)",
            _apparmor(),
            _containers(),
        ]
    return "\n".join([*ways, _TIER])


def container_hints() -> list[str]:
    """Signs that this process runs in a container."""
    hints = [path for path in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container") if os.path.exists(path)]
    found = re.search(r"docker|kubepods|libpod|lxc|containerd|garden", read("/proc/1/cgroup"))
    return [*hints, *([f"/proc/1/cgroup names {found[0]}"] if found else [])]


def _apparmor() -> str:
    python = os.path.realpath(sys.executable)
    return (
        "AppArmor (Ubuntu 23.10 and newer), as root: write /etc/apparmor.d/fxcell and load it with "
        "`apparmor_parser -r /etc/apparmor.d/fxcell`; every program of this interpreter may make user namespaces then\n"
        "    abi <abi/4.0>,\n"
        "    include <tunables/global>\n"
        f"    profile fxcell {python} flags=(unconfined) {{\n"
        "      userns,\n"
        "      include if exists <local/fxcell>\n"
        "    }"
    )


def _containers() -> str:
    return (
        "Docker: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined …   (its own profiles refuse "
        "unshare and mount; narrower: a copy of its seccomp profile that also lets through clone, unshare, mount, umount2, "
        "mount_setattr, pivot_root and sethostname)\n"
        "Podman: podman run …   (its own profile lets them through; where SELinux refuses the mounts: "
        "--security-opt label=disable; where the engine was given Docker's profile: --security-opt seccomp=unconfined)"
    )
