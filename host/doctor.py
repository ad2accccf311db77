"""What each layer needs, whether it holds on this machine, why not, and what to change: the logic of `fxcell doctor`.

Nothing is believed that was not done: a real worker is started under the policy, and what it read back after its lockdown
(the Enforced report) is what the rows say. Where it is refused, a worker of a weaker tier shows what is left.

    examine(policy) -> Report       never raises: a question that fails is a row
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import fxcell
from fxcell.host import doctor_fixes, doctor_machine, sessions
from fxcell.host.doctor_machine import Row, State
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.errors import IsolationUnavailable
from fxcell.policies.policy import Isolation, Policy
from fxcell.sandbox import plan
from fxcell.sandbox.plan import Plan
from fxcell.sandbox.probe import Probe

NEEDS: Mapping[str, str] = {
    "namespaces": "user namespaces for this user, and mount, pid, net, ipc, uts and cgroup namespaces in them",
    "minimal_root": "mount, mount_setattr (Linux 5.12) and pivot_root in a mount namespace of its own",
    "limits": "setrlimit; a cgroup makes them hold for all processes of a worker together",
    "privileges": "no_new_privs, and for root an ordinary user id that can read the interpreter",
    "landlock": "Linux 5.13 with landlock in its list of security modules",
    "seccomp": "seccomp filters with user notification (Linux 5.0), libseccomp, and no listener installed before",
    "hygiene": "close_range (Linux 5.9)",
}
"""Layer -> what it needs of the machine."""

NO_TIER = "none"
"""Not even a worker without a sandbox starts here."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no worker started: as IsolationUnavailable. layer is "start" when a worker started and ended before it was ready."""

    layer: str
    cause: str
    fix: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One start of a worker: what it was locked down by and read back, or why there was none."""

    plan: Plan | None = None
    probe: Probe | None = None
    enforced: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    accepts: the weakest tier that the policy accepts.         tier: the strongest this machine gives: full, unprivileged,
    reached: a worker started under the policy and answered.   trusted, or none.
    notes:   what this kernel's version of a layer cannot do.
    """

    policy: str
    accepts: str
    tier: str
    reached: bool
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain, stable data."""
        rows = [{**asdict(row), "state": row.state.value} for row in self.rows]
        return {"fxcell": fxcell.__version__, **asdict(self), "rows": rows, "notes": list(self.notes)}

    def row(self, name: str) -> Row:
        """The row of this name. Raises StopIteration."""
        return next(row for row in self.rows if row.name == name)


def examine(policy: Policy) -> Report:
    """Start workers, look around, say what holds. Never raises; templates stay until fxcell.host.shutdown()."""
    asked = try_start(policy)
    weaker = asked
    if asked.plan is None or asked.plan.tier is Isolation.TRUSTED:
        weaker = try_start(Policy(name="doctor", isolation=Isolation.UNPRIVILEGED))
    bare = try_start(Policy(name="doctor", isolation=Isolation.TRUSTED)) if weaker.plan is None else weaker
    tier = bare.plan.tier.value if bare.plan is not None else NO_TIER
    probe = asked.probe or weaker.probe or bare.probe
    rows: list[Row] = list(_guarded("start", lambda: _start_rows(asked)))
    rows += _guarded("layers", lambda: _layer_rows(asked, weaker if weaker.plan is not None else bare, probe))
    for name, question in doctor_machine.QUESTIONS.items():
        rows += _guarded(name, lambda question=question: question(probe))  # type: ignore[misc]
    planned = asked.plan or weaker.plan
    notes = planned.notes if planned is not None else ()
    return Report(policy.name, policy.isolation.value, tier, asked.refusal is None, tuple(rows), notes)


def try_start(policy: Policy) -> Trial:
    """Start a worker, ask it something, stop it. Never raises."""
    try:
        session = sessions.Session(policy)
    except IsolationUnavailable as error:
        return Trial(refusal=Refusal(error.layer, error.cause, error.fix))
    except WorkerCrash as crash:
        return Trial(refusal=Refusal("start", str(crash), doctor_fixes.START))
    except Exception as error:  # noqa: BLE001 - the doctor reports what it meets
        return Trial(refusal=Refusal("start", f"{type(error).__name__}: {error}", doctor_fixes.START))
    refusal = None
    try:
        if session.command(1) != 1:
            refusal = Refusal("start", "the worker did not answer with what it was sent", doctor_fixes.START)
    except Exception as error:  # noqa: BLE001 - as above
        refusal = Refusal("start", f"the worker started and did not answer: {error}", doctor_fixes.START)
    finally:
        session.stop()
    return Trial(None if refusal else session.plan, session.probe, session.enforced, refusal)


def _guarded(name: str, question: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows that a question answers; one row with the error when it fails."""
    try:
        yield from list(question())
    except Exception as error:  # noqa: BLE001 - the doctor itself must not fail
        yield Row("machine", name, "", State.ERROR, cause=f"{type(error).__name__}: {error}")


def _start_rows(asked: Trial) -> Iterator[Row]:
    """What refused the worker and is no layer: the machine, a module to preload, a folder to show, or its own end."""
    if asked.refusal is not None and asked.refusal.layer not in plan.LAYERS:
        refusal = asked.refusal
        yield Row("policy", refusal.layer, "", State.MISSING, cause=refusal.cause, fix=refusal.fix)


def _layer_rows(asked: Trial, weaker: Trial, probe: Probe | None) -> Iterator[Row]:
    for layer in plan.LAYERS:
        yield _layer_row(layer, asked, weaker, probe)


def _layer_row(layer: str, asked: Trial, weaker: Trial, probe: Probe | None) -> Row:
    needs, refusal = NEEDS[layer], asked.refusal
    if layer in asked.enforced:
        return Row("layer", layer, needs, State.HOLDS, found=_EVIDENCE[layer](asked.enforced[layer]))
    if refusal is not None and refusal.layer == layer:
        fix = doctor_fixes.namespaces(probe) if layer in ("namespaces", "minimal_root") else refusal.fix
        return Row("layer", layer, needs, State.MISSING, cause=refusal.cause, fix=fix)
    why = _missing_by_probe(layer, probe)
    if why is not None:
        return Row("layer", layer, needs, State.MISSING, cause=why, fix=doctor_fixes.by_layer(layer, probe))
    if layer in weaker.enforced:
        evidence = _EVIDENCE[layer](weaker.enforced[layer])
        if asked.refusal is None:
            return Row(
                "layer",
                layer,
                needs,
                State.OFF,
                found=f"it would hold here: {evidence}",
                cause="the policy asks for none",
            )
        tier = weaker.plan.tier.value if weaker.plan is not None else ""
        return Row("layer", layer, needs, State.HOLDS, found=f"in a worker of the tier {tier}: {evidence}")
    return Row("layer", layer, needs, State.UNPROVEN, cause="no worker with it could be started here")


def _missing_by_probe(layer: str, probe: Probe | None) -> str | None:
    """Why the machine lacks the layer, as its trial said; None when it does not lack it, as far as is known."""
    if probe is None:
        return None
    if layer in ("namespaces", "minimal_root"):
        return probe.namespaces_error or None
    if layer == "landlock" and probe.landlock_abi < plan.LANDLOCK_ABI_MIN:
        return f"kernel {probe.kernel} offers no Landlock"
    if layer == "seccomp":
        return probe.listener_error or (
            None if probe.seccomp_notify else f"kernel {probe.kernel} has no user notification"
        )
    return None


def _limits(values: Mapping[str, Any]) -> str:
    data = values["data_bytes"]
    return f"{values['open_files']} descriptors, {data / 2**20:g} MiB of data for each process, no core files"


def _privileges(values: Mapping[str, Any]) -> str:
    ids = sorted(set(values["ids"]))
    return f"{values['capabilities']} capabilities, no_new_privs, not dumpable, user and group {', '.join(map(str, ids))} inside"


_EVIDENCE: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "namespaces": lambda v: f"{', '.join(k for k in v if k != 'pid_inside')}; the worker is process {v['pid_inside']}",
    "minimal_root": lambda _: "read-only, without /proc",
    "limits": _limits,
    "privileges": _privileges,
    "landlock": lambda v: f"ABI {v['abi']}; listing / answers {v['listing_root']}",
    "seccomp": lambda v: f"the filter answers {v['socket']} to socket(), and its listener is with the supervisor",
    "hygiene": lambda v: f"descriptors {v['descriptors']}, environment variables: {len(v['environment'])}",
}
