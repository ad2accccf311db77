"""The form of one attack, and what its table is made with."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fxcell.host.selftest.sentinels import Sentinels
from fxcell.policies.policy import Isolation, Policy

REFUSED, DONE, RAISED, EFFECT_DENIED = "refused", "done", "raised", "effect_denied"
"""How an attack ends that answers: everything it tried was refused; something worked; its code raised; the host refused.
One that does not answer ends in the word of a WorkerCrash's reason."""

STOPPED = frozenset({REFUSED, "denied_syscall"})
CATEGORIES = (
    "files",
    "writes",
    "environment",
    "network",
    "processes",
    "privileges",
    "crashes",
    "resources",
    "protocol",
)
HARD_DEADLINE_S = 6.0


@dataclass(frozen=True, slots=True)
class Around:
    """What an attack can be told: its sentinels, the policy it runs under, and places of this machine."""

    sentinels: Sentinels
    policy: Policy
    folders: tuple[str, ...]
    launcher: tuple[str, ...]
    numbers: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack.

    function:   module.function of attacks/.           arguments:  what it is told, from its surroundings.
    layer:      what stops it in the tier full, where the outcome does not tell.
    ends:       how it may end so that it counts as contained; never looked at alone, the sentinels count as well.
    granted_by: a word of the policy's `allow` with which it may work, because the user wants it to.
    x86_only:   it is machine code, or a number, of that processor.
    """

    name: str
    category: str
    tries: str
    function: str
    layer: str
    ends: frozenset[str] = STOPPED
    arguments: Callable[[Around], Mapping[str, Any]] = field(default=lambda _around: {})
    granted_by: str = ""
    deadline_s: float = HARD_DEADLINE_S
    x86_only: bool = False

    def skipped(self, policy: Policy) -> str:
        """Why it cannot be tried here; "" when it can."""
        if self.x86_only and platform.machine() != "x86_64":
            return "machine code for x86-64 only"
        del policy
        return ""

    def granted(self, policy: Policy) -> bool:
        """True when the policy says that this may work."""
        return self.granted_by in policy.allow and policy.isolation is not Isolation.TRUSTED


def raw(name: str, *registers: int, tries: str = "", category: str = "privileges", call: str = "") -> Attack:
    """An attack that is one system call with these registers."""
    number_of = call or name
    return Attack(
        name, category, tries or f"calls {number_of}", "kernel.call", "seccomp",
        arguments=lambda around: {"name": number_of, "number": around.numbers(number_of), "arguments": list(registers)},
    )  # fmt: skip
