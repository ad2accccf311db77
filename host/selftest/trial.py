"""Tries every attack in a fresh worker and judges it: by its end, by what it reports, and by its sentinels.

template (one for the policy) ── worker ── attack      eight at a time, each with sentinels of its own
                              └─ neighbour             asked after each batch: it must never notice
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pyseccomp

from fxcell.host import templates
from fxcell.host.plugins import Plugin, load_plugin
from fxcell.host.runtime import run
from fxcell.host.selftest.attack import Around, Attack
from fxcell.host.selftest.judgement import NOT_CONTAINED, SKIPPED, Row, Setting, judged
from fxcell.host.selftest.sentinels import VARIABLE, Sentinels
from fxcell.host.selftest.table import ATTACKS
from fxcell.policies.builtin import SendCommandToWorkerProcess, StartWorkerProcess, StopWorkerProcess
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import OutcomeError, UserError
from fxcell.policies.limits import MiB
from fxcell.policies.policy import Isolation, Policy
from fxcell.sandbox.plan import Plan

_FOLDER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "attacks")
_AT_ONCE = 8
_PLACES = ("/tmp", "/var/tmp")
_PLACE_BYTES_MAX = 40
"""The path of a socket has at most 107 bytes, and the folders of a trial take some 60 of them."""
_NATIVE = ("ctypes", "socket", "mmap", "resource", "gc", "select", "subprocess", "encodings.idna")
"""What attacks need that a policy without "load_libraries" would not let them import: imported beforehand, by the template.
It grants nothing, and makes the test harder: the attacker is one that has native code already."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A whole selftest. neighbour_asked: how often the worker beside the attacks was asked, and answered rightly."""

    policy: Policy
    plan: Plan
    preloaded: tuple[str, ...]
    rows: tuple[Row, ...]
    neighbour_asked: int
    seconds: float

    @property
    def held(self) -> bool:
        """True when nothing was NOT CONTAINED."""
        return all(row.verdict != NOT_CONTAINED for row in self.rows)


def perform(
    policy: Policy, attacks: Sequence[Attack] = ATTACKS, progress: Callable[[str], None] | None = None
) -> Trial:
    """Try the attacks under a policy.

    progress: called with the name of each attack before it is tried.
    After:    sentinels and workers are gone; the policy's template stays until fxcell.host.shutdown().
    Raises:   IsolationUnavailable, WorkerCrash(start_failed): there is nothing to test. UserError: nowhere to put sentinels.
    """
    started = time.monotonic()
    preloaded = _beforehand(policy)
    tested = _tested(policy, preloaded)
    plugin = load_plugin(_FOLDER)
    rows: list[Row] = []
    asked = 0
    with _variable(), _place(policy) as place, _worker(tested) as neighbour:
        plan = templates.template_for(tested).plan
        setting = Setting(tested, plan.layers, place)
        for start in range(0, len(attacks), _AT_ONCE):
            rows += _batch(attacks[start : start + _AT_ONCE], setting, plugin, progress)
            if run(SendCommandToWorkerProcess(process=neighbour, command=[start, "here"])) != [start, "here"]:
                raise AssertionError("the neighbour of the attacks answered wrongly")
            asked += 1
    return Trial(policy, plan, preloaded, tuple(rows), asked, time.monotonic() - started)


def _beforehand(policy: Policy) -> tuple[str, ...]:
    if policy.isolation is Isolation.TRUSTED or "load_libraries" in policy.allow:
        return ()
    return tuple(name for name in _NATIVE if name not in policy.preload)


def _tested(policy: Policy, preloaded: tuple[str, ...]) -> Policy:
    """The policy, with large limits cut so that attacks on them end soon, and silent: what workers print is not shown."""
    limits = policy.limits
    cut = dataclasses.replace(
        limits,
        memory_bytes=min(limits.memory_bytes, 512 * MiB),
        output_bytes=min(limits.output_bytes, 1 * MiB),
        scratch_bytes=min(limits.scratch_bytes, 64 * MiB),
        message_bytes=min(limits.message_bytes, 128 * MiB),
    )
    effects = {name: rule for name, rule in policy.effects.items() if name not in ("Print", "Log")}
    return policy.replaced(limits=cut, effects=effects, preload=(*policy.preload, *preloaded))


@contextlib.contextmanager
def _variable() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "fxcell-selftest-variable-" + os.urandom(8).hex()
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


@contextlib.contextmanager
def _place(policy: Policy) -> Iterator[str]:
    """A folder for sentinels that the policy does not show."""
    shown = _shown(policy)
    for parent in (tempfile.gettempdir(), *_PLACES, os.path.expanduser("~"), os.getcwd()):
        real = os.path.realpath(parent)
        hidden = not any(f"{real}/".startswith(f"{path.rstrip('/')}/") for path in shown)
        if hidden and len(os.fsencode(real)) <= _PLACE_BYTES_MAX and os.access(real, os.W_OK):
            with tempfile.TemporaryDirectory(prefix=f"fxcell-{os.getpid()}-selftest-", dir=real) as folder:
                os.chmod(folder, 0o755)  # noqa: S103 - nothing but the sandbox protects it
                yield folder
            return
    raise UserError("there is no folder for sentinels that this user may write to and the policy does not show")


def _shown(policy: Policy) -> set[str]:
    """Folders that the policy lets a plugin read, itself or through the host."""
    return {*policy.visible, *getattr(policy.effects.get("ReadFile"), "under", ())}


@contextlib.contextmanager
def _worker(policy: Policy) -> Iterator[WorkerProcess]:
    worker = run(StartWorkerProcess(policy=policy))
    try:
        yield worker
    finally:
        run(StopWorkerProcess(process=worker))


def _batch(
    attacks: Sequence[Attack], setting: Setting, plugin: Plugin, progress: Callable[[str], None] | None
) -> list[Row]:
    policy = setting.policy
    rows: dict[str, Row] = {}
    started: list[tuple[Attack, Sentinels, Future[Any], list[float]]] = []
    with contextlib.ExitStack() as stack:
        for attack in attacks:
            if progress is not None:
                progress(attack.name)
            if reason := attack.skipped(policy):
                rows[attack.name] = Row(attack, SKIPPED, "", reason, "", seen=False, touched=(), seconds=0.0)
                continue
            sentinels = Sentinels(setting.place)
            stack.callback(sentinels.close)
            worker = stack.enter_context(_worker(policy))
            told = attack.arguments(Around(sentinels, policy, _folders(policy), _launcher(), _number))
            call = plugin.call(attack=attack.function, **told)
            command = SendCommandToWorkerProcess(process=worker, command=call, deadline_s=attack.deadline_s)
            times = [time.monotonic()]
            future = run.submit(command)
            future.add_done_callback(functools.partial(_note_time, times))
            started.append((attack, sentinels, future, times))
        for attack, sentinels, future, times in started:
            error = future.exception()
            if error is not None and not isinstance(error, OutcomeError):
                raise error
            outcome = future.result() if error is None else error
            rows[attack.name] = judged(setting, attack, sentinels, outcome, times[-1] - times[0])
    return [rows[attack.name] for attack in attacks]


def _note_time(times: list[float], _future: Future[Any]) -> None:
    times.append(time.monotonic())


def _number(name: str) -> int:
    """A system call's number here; one that does not exist where the architecture lacks it."""
    number = int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
    return number if number >= 0 else 0xFFFF


def _folders(policy: Policy) -> tuple[str, ...]:
    """Where a file would be found: those that exist here, but for a scratch folder that the policy grants."""
    import fxcell

    wanted = [
        "/", "/etc", "/usr/lib", "/usr/local/bin", "/dev/shm", "/var/tmp", "/run", os.path.expanduser("~"), os.getcwd(),
        tempfile.gettempdir(), os.path.dirname(os.path.realpath(fxcell.__file__)), os.path.dirname(os.__file__),
        *(path for path in sys.path if path.endswith("-packages")),
    ]  # fmt: skip
    private = ("/tmp", "/scratch") if policy.limits.scratch_bytes else ()
    return tuple(path for path in dict.fromkeys(wanted) if os.path.isdir(path) and path not in private)


def _launcher() -> tuple[str, ...]:
    import fxcell
    from fxcell.sandbox import template

    return (os.path.realpath(sys.executable), os.__file__, fxcell.__file__, os.path.realpath(template.__file__))
