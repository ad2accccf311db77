"""What a policy needs of this machine: pure; the same data give the same plan on either side of the border.

make(policy, probe) -> Plan, or IsolationUnavailable naming layer, cause and fix. Nothing is started or changed here.
A machine reaches one of three tiers: full, unprivileged (no user namespaces), trusted. A policy names the weakest it
accepts, and gets the strongest there is.
"""

from __future__ import annotations

from dataclasses import dataclass

from fxcell.policies.errors import IsolationUnavailable
from fxcell.policies.policy import Isolation, Policy
from fxcell.sandbox.probe import Probe

LAYERS: tuple[str, ...] = ("namespaces", "minimal_root", "limits", "privileges", "landlock", "seccomp", "hygiene")
"""The layers of the tier full, in the order in which they are applied."""
UNPRIVILEGED_LAYERS: tuple[str, ...] = LAYERS[2:]
CONTAINMENT_LAYERS: tuple[str, ...] = ("limits", "hygiene")
"""All there is in the tier trusted."""

LANDLOCK_ABI_MIN = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be applied.

    tier:       the tier this machine reaches for this policy.
    namespaces: user, mount, pid and the other namespaces, and the minimal root in them.
    filtered:   privileges, Landlock and seccomp. False in the tier trusted only.
    words:      the policy's `allow` words, which widen the filter.
    notes:      what this kernel's version of a layer cannot do, in words; never a missing layer.
    """

    tier: Isolation
    layers: tuple[str, ...]
    namespaces: bool
    filtered: bool
    words: frozenset[str]
    landlock_abi: int
    outside_uid: int
    notes: tuple[str, ...]


def make(policy: Policy, probe: Probe) -> Plan:
    """The plan for this policy on this machine.

    Raises: IsolationUnavailable - a required layer cannot be had. No weaker plan than the policy names is ever made.
    """
    if probe.system != "linux":
        raise IsolationUnavailable("kernel", f"this is {probe.system}", "run fxcell on Linux")
    if policy.isolation is Isolation.TRUSTED:
        return Plan(Isolation.TRUSTED, CONTAINMENT_LAYERS, False, False, policy.allow, 0, probe.uid, ())
    _require_filter(probe)
    notes = _landlock_notes(probe.landlock_abi)
    if not probe.namespaces_error:
        tier, layers = Isolation.FULL, LAYERS
    elif policy.isolation is Isolation.UNPRIVILEGED:
        _require_unprivileged(policy, probe)
        tier, layers = Isolation.UNPRIVILEGED, UNPRIVILEGED_LAYERS
        notes += (f"no namespaces ({probe.namespaces_error}): workers see which paths and processes exist",)
    else:
        raise IsolationUnavailable("namespaces", probe.namespaces_error, _namespace_fix(probe))
    return Plan(
        tier,
        layers,
        namespaces=tier is Isolation.FULL,
        filtered=True,
        words=policy.allow,
        landlock_abi=probe.landlock_abi,
        outside_uid=probe.outside_uid,
        notes=notes,
    )


def _require_filter(probe: Probe) -> None:
    if probe.machine not in ("x86_64", "aarch64"):
        raise IsolationUnavailable("seccomp", f"no system call table for {probe.machine}", "use x86_64 or aarch64")
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
    if probe.listener_error:
        raise IsolationUnavailable(
            "seccomp",
            probe.listener_error,
            "start the host where no seccomp filter with a listener holds yet (EBUSY: LXD and other supervisors install one) "
            "and where the container's own filter lets seccomp() through",
        )


def _require_unprivileged(policy: Policy, probe: Probe) -> None:
    """What else must hold where namespaces are missing. Raises IsolationUnavailable."""
    if probe.outside_uid == 0:
        raise IsolationUnavailable(
            "privileges",
            "this process is root, cannot change its user id, and there are no user namespaces to leave root in",
            "start the host as an ordinary user, or give it CAP_SETUID and CAP_SETGID",
        )
    if "scratch" in policy.allow:
        raise IsolationUnavailable(
            "minimal_root",
            f"a private scratch folder needs a mount of its own, and there are no namespaces: {probe.namespaces_error}",
            f'take "scratch" out of `allow`, or allow namespaces: {_namespace_fix(probe)}',
        )
    if "processes" in policy.allow:
        raise IsolationUnavailable(
            "namespaces",
            f"without a pid namespace nothing ends all that a worker forked: {probe.namespaces_error}",
            f'take "processes" out of `allow`, or allow namespaces: {_namespace_fix(probe)}',
        )


def _namespace_fix(probe: Probe) -> str:
    who = "as root" if probe.uid == 0 else "as an ordinary user"
    return (
        f"user namespaces must be allowed {who}: sysctl kernel.unprivileged_userns_clone=1 (Debian), "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with `userns,` (Ubuntu 23.10 and "
        "newer), sysctl user.max_user_namespaces above 0, and in a container a seccomp profile that lets unshare, mount "
        "and pivot_root through (`fxcell doctor` prints the flags); or accept the weaker tier with "
        'isolation = "unprivileged" in the policy'
    )


def _landlock_notes(abi: int) -> tuple[str, ...]:
    missing = {
        2: "files may be linked between granted directories (Linux 5.19 denies it)",
        3: "truncate() is not covered by Landlock (Linux 6.2); seccomp denies it, and the minimal root is read-only",
        4: "TCP is not covered by Landlock (Linux 6.7); sockets are denied by seccomp all the same",
        5: "ioctl on devices is not covered by Landlock (Linux 6.10); seccomp denies it all the same",
        6: "signals and abstract sockets are not covered by Landlock (Linux 6.12); seccomp denies them all the same",
    }
    return tuple(text for version, text in missing.items() if abi < version)
