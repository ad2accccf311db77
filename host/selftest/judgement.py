"""The verdict on an attack: by how its worker ended, by what it reports, and by what happened to its sentinels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fxcell.host.selftest.attack import DONE, EFFECT_DENIED, RAISED, REFUSED, Attack
from fxcell.host.selftest.sentinels import Sentinels
from fxcell.policies.crash import Reason, WorkerCrash
from fxcell.policies.errors import EffectDenied, PluginError
from fxcell.policies.policy import Policy
from fxcell.sandbox.plan import LAYERS

HELD, GRANTED, NOT_CONTAINED, SKIPPED = "ok", "granted", "NOT CONTAINED", "skipped"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the attacks of one trial have in common: the policy, the layers that hold, and where sentinels are put."""

    policy: Policy
    layers: tuple[str, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Row:
    """What one attack came to.

    outcome: in the words of attack.py.     detail: in a line, made by this host from evidence and the attack's report.
    layer:   what stopped it; "" where nothing did.
    seen:    the secret was in the outcome. touched: what happened to its sentinels.
    """

    attack: Attack
    verdict: str
    outcome: str
    detail: str
    layer: str
    seen: bool
    touched: tuple[str, ...]
    seconds: float


def judged(setting: Setting, attack: Attack, sentinels: Sentinels, outcome: Any, seconds: float) -> Row:
    """The verdict on one attack that was tried.

    outcome: the value it answered, or an OutcomeError.
    """
    word, detail = told(outcome)
    seen, touched = sentinels.seen(outcome), tuple(sentinels.touched())
    if attack.granted(setting.policy) and word in (DONE, *attack.ends) and not seen and not touched:
        verdict = GRANTED if word == DONE else HELD
    else:
        verdict = HELD if word in attack.ends and not seen and not touched else NOT_CONTAINED
    layer = _layer(attack, word, outcome) if verdict == HELD else ""
    if layer in LAYERS and layer not in setting.layers:
        layer = "kernel"  # it refuses this to every process of this user
    more = ["the secret was seen"] if seen else []
    return Row(attack, verdict, word, "; ".join([*more, *touched, detail]), layer, seen, touched, seconds)


def told(outcome: Any) -> tuple[str, str]:
    """An outcome in one of the words of attack.py, and in a line."""
    if isinstance(outcome, WorkerCrash):
        return outcome.reason.value, outcome.detail
    if isinstance(outcome, EffectDenied):
        return EFFECT_DENIED, str(outcome)
    if isinstance(outcome, PluginError):
        return RAISED, str(outcome)
    if isinstance(outcome, dict) and outcome.get("did"):
        return DONE, ", ".join(map(str, outcome["did"]))
    if isinstance(outcome, dict) and outcome.get("refused"):
        return REFUSED, ", ".join(f"{what}: {why}" for what, why in outcome["refused"])
    return RAISED, f"it answered {outcome!r:.200}"


_LAYER_OF_REASON = {
    Reason.DENIED_SYSCALL.value: "seccomp",
    Reason.OUT_OF_MEMORY.value: "limits",
    Reason.OUTPUT_LIMIT.value: "limits",
    Reason.CPU_LIMIT.value: "limits",
    Reason.DEADLINE.value: "host",
    Reason.PROTOCOL_VIOLATION.value: "host",
    EFFECT_DENIED: "broker",
}
_LAYER_OF_ERRNO = {
    "ENOENT": "minimal_root",
    "EROFS": "minimal_root",
    "EACCES": "landlock",
    "ENOSYS": "seccomp",
    "ESRCH": "namespaces",
}


def _layer(attack: Attack, word: str, outcome: Any) -> str:
    """What stopped it, from the evidence where that tells, else what the table says."""
    if word in _LAYER_OF_REASON:
        return _LAYER_OF_REASON[word]
    if isinstance(outcome, WorkerCrash):
        return "seccomp" if outcome.signal_name == "SIGSYS" else attack.layer
    if word == REFUSED and attack.category in ("files", "writes", "environment"):
        found = [_LAYER_OF_ERRNO[why] for _, why in outcome["refused"] if why in _LAYER_OF_ERRNO]
        if attack.layer != "seccomp" and found:
            return ", ".join(dict.fromkeys(found))
    return attack.layer
