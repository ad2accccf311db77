"""What a policy needs of this machine: pure; the same data give the same plan on either side of the border.

make(policy, probe) -> Plan, or IsolationUnavailable naming layer, cause and fix. Nothing is started or changed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fxcell.policies.errors import IsolationUnavailable
from fxcell.policies.policy import Isolation, Policy
from fxcell.sandbox.probe import Probe

LAYERS = ("namespaces", "minimal_root", "limits", "privileges", "landlock", "seccomp", "hygiene")
"""The layers of isolation = "full", in the order in which they are applied."""
CONTAINMENT_LAYERS = ("limits", "hygiene")
"""All there is under isolation = "trusted"."""

LANDLOCK_ABI_MIN = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be applied.

    confined: False for isolation = "trusted": crash containment only.
    words:    the policy's `allow` words, which widen the filter.
    notes:    what this kernel's version of a layer cannot do, in words; never a missing layer.
    """

    layers: tuple[str, ...]
    confined: bool
    words: frozenset[str]
    landlock_abi: int
    outside_uid: int
    notes: tuple[str, ...]


def make(policy: Policy, probe: Probe) -> Plan:
    """The plan for this policy on this machine.

    Raises: IsolationUnavailable - a required layer cannot be had. No weaker plan is ever made instead.
    """
    if probe.system != "linux":
        raise IsolationUnavailable("kernel", f"this is {probe.system}", "run fxcell on Linux")
    if policy.isolation is Isolation.TRUSTED:
        return Plan(
            CONTAINMENT_LAYERS, confined=False, words=policy.allow, landlock_abi=0, outside_uid=probe.uid, notes=()
        )
    if probe.machine not in ("x86_64", "aarch64"):
        raise IsolationUnavailable("seccomp", f"no system call table for {probe.machine}", "use x86_64 or aarch64")
    if probe.namespaces_error:
        raise IsolationUnavailable("namespaces", probe.namespaces_error, _namespace_fix(probe))
    if probe.landlock_abi < LANDLOCK_ABI_MIN:
        raise IsolationUnavailable(
            "landlock",
            f"kernel {probe.kernel} offers no Landlock",
            'boot Linux 5.13 or newer with "landlock" in the lsm= list (see /sys/kernel/security/lsm)',
        )
    if not probe.seccomp_notify:
        raise IsolationUnavailable(
            "seccomp",
            f"kernel {probe.kernel} has no user notification",
            "use Linux 5.0 or newer with CONFIG_SECCOMP_FILTER",
        )
    return Plan(LAYERS, confined=True, words=policy.allow, landlock_abi=probe.landlock_abi, outside_uid=probe.outside_uid,
                notes=_landlock_notes(probe.landlock_abi))  # fmt: skip


def _namespace_fix(probe: Probe) -> str:
    who = "as root" if probe.uid == 0 else "as an ordinary user"
    return (
        f"user namespaces must be allowed {who}: sysctl kernel.unprivileged_userns_clone=1 (Debian), "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with `userns,` (Ubuntu 23.10 and newer), "
        "sysctl user.max_user_namespaces above 0, and in a container a seccomp profile that lets unshare and mount through"
    )


def _landlock_notes(abi: int) -> tuple[str, ...]:
    missing = {
        2: "files may be linked between granted directories (Linux 5.19 denies it)",
        3: "truncate() is not covered by Landlock (Linux 6.2); the root is read-only all the same",
        4: "TCP is not covered by Landlock (Linux 6.7); sockets are denied by seccomp all the same",
        6: "signals and abstract sockets are not covered by Landlock (Linux 6.12); namespaces and seccomp deny them all the same",
    }
    return tuple(text for version, text in missing.items() if abi < version)
