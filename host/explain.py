"""What a policy means, as plain data: the logic of `fxcell policy explain`. Nothing is started, nothing is changed."""

from __future__ import annotations

import errno
import platform
from collections.abc import Mapping
from typing import Any

from fxcell.host import explain_calls
from fxcell.policies.policy import Isolation, Policy
from fxcell.policies.toml_text import bytes_text, rule_text
from fxcell.policies.words import WORDS
from fxcell.sandbox import plan, syscalls
from fxcell.sandbox.filter import compile_filter
from fxcell.sandbox.view import view_for

TIERS: Mapping[Isolation, str] = {
    Isolation.FULL: "every layer, or no worker",
    Isolation.UNPRIVILEGED: "every layer where the machine has namespaces; without them a worker can see which paths and "
    "processes exist, but not open or signal them",
    Isolation.TRUSTED: "NO SANDBOX: a process of its own with limits. It does not stop code that means harm",
}
LAYERS: Mapping[str, str] = {
    "namespaces": "no other process, network interface, queue or host name can be named",
    "minimal_root": "no path exists but the interpreter, its libraries and what `visible` names, all read-only",
    "limits": "memory, tasks, descriptors, file sizes and stack end at a number",
    "privileges": "no capability, no id of root's, and no way to gain one",
    "landlock": "what may be opened is decided once more, by another part of the kernel",
    "seccomp": "only the calls listed here reach the kernel",
    "hygiene": "nothing is inherited: no descriptor, no environment, no terminal",
}
"""Layer -> why it is there."""


def explain(policy: Policy, *, disassembled: bool = False) -> dict[str, Any]:
    """Everything that a worker under this policy can do. Raises FileNotFoundError, NotADirectoryError for `visible`."""
    filtered = policy.isolation is not Isolation.TRUSTED
    told: dict[str, Any] = {
        "policy": policy.name,
        "description": policy.description,
        "digest": policy.digest,
        "accepts": {"tier": policy.isolation.value, "means": TIERS[policy.isolation]},
        "layers": [{"layer": layer, "reason": LAYERS[layer]} for layer in _layers(policy.isolation)],
        "words": [{"word": word, "opens": WORDS[word]} for word in sorted(policy.allow)],
        "preload": list(policy.preload),
        "calls": _calls(policy) if filtered else None,
        "filter": _filter(policy, disassembled=disassembled) if filtered else None,
        "effects": [
            {"effect": name, "rule": rule.to_data(), "text": rule_text(rule.to_data())}
            for name, rule in policy.effects.items()
        ],
        "limits": [_limit(name, value) for name, value in policy.limits.to_data().items()],
        "view": _view(policy) if filtered else None,
    }
    if policy.isolation is Isolation.UNPRIVILEGED:
        told["layers_without_namespaces"] = list(plan.UNPRIVILEGED_LAYERS)
    return told


def _layers(isolation: Isolation) -> tuple[str, ...]:
    return plan.CONTAINMENT_LAYERS if isolation is Isolation.TRUSTED else plan.LAYERS


def _calls(policy: Policy) -> dict[str, Any]:
    rows = syscalls.allowed(policy.allow)
    here = explain_calls.readable_rows(rows)
    counted = explain_calls.readable_rows(syscalls.BY_MACHINE[syscalls.MEMORY_IS_COUNTED])
    refused = [
        {"errno": errno.errorcode.get(number, str(number)), "reason": reason, "names": names}
        for number, reason, names in explain_calls.errno_groups(rows)
    ]
    return {
        "architecture": platform.machine(),
        "reachable": len({row["name"] for row in here}),
        "allowed": here,
        "allowed_with_memory_cgroup": counted,
        "refused": refused,
        "ends_the_worker": explain_calls.ending_calls(rows),
    }


def _filter(policy: Policy, *, disassembled: bool) -> dict[str, Any]:
    program = compile_filter(policy.allow)
    told: dict[str, Any] = {"instructions": len(program) // 8, "bytes": len(program)}
    if disassembled:
        from fxcell.host.disassemble import disassemble

        told["disassembly"] = disassemble(program)
    return told


def _limit(name: str, value: float) -> dict[str, Any]:
    unit = "bytes" if name.endswith("_bytes") else "s" if name.endswith("_s") else ""
    plain = name.removesuffix("_bytes").removesuffix("_s")
    text = bytes_text(int(value)) if unit == "bytes" else f"{value:g} {unit}".rstrip() if unit else str(value)
    return {"limit": plain, "value": value, "unit": unit, "text": text}


def _view(policy: Policy) -> dict[str, list[str]]:
    seen = view_for(policy.visible)
    return {
        "trees": list(seen.trees),
        "links": [f"{path} -> {target}" for path, target in seen.links],
        "shown_empty": list(seen.masked),
        "devices": list(seen.devices),
    }
