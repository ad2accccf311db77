"""Capabilities, no_new_privs, securebits, dumpable, death signal: the process attributes of prctl(2).

The only module that uses python-prctl (GPL-3.0-or-later; see the README for what that means for a product).
"""

from __future__ import annotations

import errno
import os
import signal

import prctl

from fxcell.policies.errors import KernelRefused
from fxcell.sandbox.kernel import libc

_PR_SET_MDWE = 65
_MDWE_REFUSE_EXEC_GAIN = 1
_SECURE_ALL_LOCKED = 0b11101111
"""noroot, no_setuid_fixup, no_cap_ambient_raise, each locked, and keep_caps locked off: capabilities(7)."""
_PR_SET_SECUREBITS = 28
_CAPABILITIES = range(prctl.CAP_LAST_CAP + 1)
_CAPABILITY_SETS = (prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED, prctl.CAP_INHERITABLE)
# Made once, in the template: made anew they would cost every worker memory of its own.
_EACH = tuple((capability, kind) for kind in _CAPABILITY_SETS for capability in _CAPABILITIES)
_NONE = tuple((capability, kind, False) for capability, kind in _EACH)


def drop_bounding_set() -> None:
    """Take every capability out of the bounding set, so that no later exec can gain one.

    Before:  CAP_SETPCAP in this user namespace. Capabilities the kernel does not know end the loop (EINVAL).
    """
    for capability in _CAPABILITIES:
        try:
            prctl.capbset_drop(capability)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            raise KernelRefused("drop the bounding set", error.errno or 0, f"capability {capability}") from error


def lock_securebits() -> None:
    """Lock the securebits so that uid 0 means nothing special here any more. Needs CAP_SETPCAP.

    By the raw call: python-prctl refuses the two ambient bits (Linux 4.3) as invalid.
    """
    libc.syscall("lock the securebits", "prctl", _PR_SET_SECUREBITS, _SECURE_ALL_LOCKED, 0, 0, 0)


def drop_capabilities() -> None:
    """Clear the permitted, effective and inheritable sets, and with them the ambient one.

    prctl.cap_permitted.limit() fails with EPERM on current kernels (it drops one set before the other), hence all
    sets at once.
    """
    prctl.set_caps(*_NONE)


def held_capabilities() -> int:
    """How many capabilities this process holds, counted over its permitted, effective and inheritable sets."""
    held = prctl.get_caps(*_EACH)
    return sum(sum(per_set.values()) for per_set in held.values())


def set_no_new_privs() -> None:
    """Make exec unable to grant anything; cannot be undone. Landlock and seccomp need it. Source: prctl(2), Linux 3.5."""
    prctl.set_no_new_privs(1)


def has_no_new_privs() -> bool:
    """True once set_no_new_privs was called here or in an ancestor."""
    return bool(prctl.get_no_new_privs())


def set_dumpable(dumpable: bool) -> None:
    """Say whether others of the same user may trace this process, and whether it may dump core."""
    prctl.set_dumpable(int(dumpable))


def is_dumpable() -> bool:
    """The current state of set_dumpable."""
    return bool(prctl.get_dumpable())


def die_with_parent(expected_parent_pid: int | None) -> None:
    """Have the kernel kill this process when the thread that forked it ends.

    expected_parent_pid: None when the parent is in another pid namespace (getppid is 0 then).
    Note:    any later change of credentials clears the setting, so it must be made again after one.
    Raises:  KernelRefused(ESRCH) when the parent has gone before the call took effect.
    Source:  prctl(2) PR_SET_PDEATHSIG.
    """
    prctl.set_pdeathsig(signal.SIGKILL)
    if expected_parent_pid is not None and os.getppid() != expected_parent_pid:
        raise KernelRefused("tie this process's life to its parent's", 3, f"parent {expected_parent_pid} has gone")


def adopt_orphans() -> None:
    """Make this process the new parent of descendants whose parent ended. Source: prctl(2), Linux 3.4."""
    prctl.set_child_subreaper(1)


def refuse_memory_execution_gain() -> bool:
    """Deny turning writable memory executable for the rest of this process's life; False when the kernel is older than 6.3."""
    return libc.syscall_errno("prctl", _PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0


def set_process_name(name: str) -> None:
    """What ps and top show for this process (at most 15 bytes)."""
    prctl.set_name(name)


def can_change_ids() -> bool:
    """True when this process may take another user and group id."""
    return bool(prctl.cap_effective.setuid and prctl.cap_effective.setgid)


def become(uid: int) -> None:
    """Take this id as user and group, real, effective and saved, and no supplementary groups.

    Before:  CAP_SETUID and CAP_SETGID in this user namespace, and the id mapped in it.
    After:   capabilities of the old id are gone; dumpable is off, as the kernel does on a change of ids.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
