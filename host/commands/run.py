"""`fxcell run`: one plugin, one call, in a hardened worker."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from fxcell.host.commands import exits
from fxcell.policies.errors import EffectDenied, FxcellError, PluginError, PluginNotUsable, UserError
from fxcell.policies.plugin_names import is_plugin_name

if TYPE_CHECKING:
    from fxcell.host.effects.context import Context
    from fxcell.host.plugins import Plugin
    from fxcell.policies.effects import Effect, WorkerProcess


@dataclass(frozen=True, slots=True)
class Manner:
    """How a plugin is run beside the ordinary way.

    record:  path of the record to write, where nothing is yet, or None.
    dry_run: no effect is performed; each that would be is printed, and answered as host/simulate.py says.
    audit:   path of the file where each decision is recorded (fxcell.host.audit), or None.
    """

    record: str | None = None
    dry_run: bool = False
    audit: str | None = None


def run_plugin(
    target: str, policy: str, given: Sequence[str], *, as_json: bool, deadline_s: float | None, manner: Manner = Manner()
) -> int:
    """Run PATH[:FUNCTION] under a policy, print what came of it, answer the exit code.

    given: "name=value" texts; a value that parses as JSON is that JSON, any other is itself.
    After: nothing of the worker is left. With as_json stdout holds one JSON object, and what the plugin prints goes to
           stderr.
    """
    from fxcell.host.commands.shown import readable, to_json

    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), _audited(manner.audit):
            value = _answer(target, policy, given, deadline_s, manner)
    except FxcellError as error:
        tell(_line_of(error))
        if as_json:
            print(to_json(_to_dict(error)))
        return exits.code_of(error)
    except KeyboardInterrupt:
        tell("interrupted; the worker was ended")
        return exits.INTERRUPTED
    print(to_json({"outcome": "value", "value": value}) if as_json else readable(value))
    return exits.VALUE


def _audited(audit_file: str | None) -> contextlib.AbstractContextManager[object]:
    if audit_file is None:
        return contextlib.nullcontext()
    from fxcell.host import audit

    try:
        return audit.to_file(audit_file)
    except audit.AuditError as error:  # which at its end means lost records: nobody's wrong option
        raise UserError(f"--audit: {error}") from error


def split_target(target: str) -> tuple[str, str | None]:
    """(path, function) of PATH[:FUNCTION]; a file whose own name holds a colon is meant when it exists."""
    path, colon, function = target.rpartition(":")
    if not colon or "/" in function or os.path.lexists(target):
        return target, None
    return path, function


def parse_arguments(given: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments behind `--arg name=value` texts. Raises UserError."""
    arguments: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--arg {text[:80]!r} must be name=value, with a name that a function's parameter can have")
        if name in arguments:
            raise UserError(f"--arg {name}=… is given twice")
        arguments[name] = _json_or_text(value)
    return arguments


def _answer(target: str, policy_name: str, given: Sequence[str], deadline_s: float | None, manner: Manner) -> Any:
    if deadline_s is not None and not (math.isfinite(deadline_s) and deadline_s > 0):
        raise UserError(f"--deadline must be a number of seconds above 0, got {deadline_s}")
    if manner.record is not None and os.path.lexists(manner.record):
        raise UserError(f"{manner.record!r} exists already: a record is not written over it; give another name")
    from fxcell import FX, load_policy
    from fxcell.host import asking, shutdown
    from fxcell.host.commands.prompt import ask_at_the_terminal
    from fxcell.host.plugins import load_plugin, narrowed
    from fxcell.host.runtime import run

    arguments = parse_arguments(given)
    plugin = load_plugin(*split_target(target))
    policy = load_policy(policy_name)
    if sys.stdin.isatty():
        asking.answer_with(ask_at_the_terminal)
    try:
        named = plugin.name if is_plugin_name(plugin.name) else None  # without a name it keeps no state
        worker = FX.StartWorkerProcess(policy=narrowed(policy, plugin), plugin=named) | run
        command = FX.SendCommandToWorkerProcess(
            process=worker, command=plugin.call(**arguments), deadline_s=deadline_s
        )
        with _in_manner(manner, worker, plugin):
            return command | run
    except PluginError as error:
        if error.type_name == "PluginNotUsable":  # so said sandbox/code.py of the entry; a plugin could say it too
            raise PluginNotUsable(f"the plugin cannot be used: {error.message}") from error
        raise
    except EffectDenied as denied:
        requested = plugin.requested_effects
        if requested is not None and denied.effect not in requested and denied.effect in policy.effects:
            raise _NotRequested(denied, target, [*requested, denied.effect]) from None
        raise
    finally:
        asking.answer_with(None)
        shutdown()


@contextlib.contextmanager
def _in_manner(manner: Manner, worker: WorkerProcess, plugin: Plugin) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if manner.dry_run:
            from fxcell.host.registry import session_of

            broker = session_of(worker).broker
            broker.performer, broker.simulated = _would_perform, True
        if manner.record is not None:
            from fxcell.host.recording import recording

            stack.enter_context(recording(worker, manner.record, plugin))
        yield


def _would_perform(effect: Effect, context: Context) -> Any:
    from fxcell.host.broker import summary
    from fxcell.host.simulate import simulated

    print(f"would perform FX.{effect.effect_name}({summary(effect)})", flush=True)
    return simulated(effect, context)


class _NotRequested(EffectDenied):
    """The policy would grant it, but the plugin's own manifest does not ask for it."""

    def __init__(self, denied: EffectDenied, target: str, wanted: list[str]) -> None:
        super().__init__(denied.effect, None, "plugin.toml does not request it", denied.policy, "")
        self.suggestion = f"effects = {json.dumps(sorted(wanted))}"
        path = os.path.join(split_target(target)[0], "plugin.toml")
        self.text = f"FX.{denied.effect} is denied: {path} does not request it. To allow it, write there: {self.suggestion}"

    def __str__(self) -> str:
        return self.text


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _to_dict(error: FxcellError) -> dict[str, Any]:
    from fxcell.policies.errors import IsolationUnavailable, OutcomeError

    if isinstance(error, _NotRequested):
        return {**EffectDenied.to_dict(error), "outcome": "EffectDenied"}
    if isinstance(error, OutcomeError):
        return error.to_dict()
    told: dict[str, Any] = {"outcome": type(error).__name__, "message": str(error)}
    if isinstance(error, IsolationUnavailable):
        told |= {"layer": error.layer, "cause": error.cause, "fix": error.fix}
    return told


def _line_of(error: FxcellError) -> str:
    from fxcell.policies.crash import WorkerCrash

    if isinstance(error, PluginError):
        frames = re.findall(r'File "([^"\n]{1,300})", line (\d{1,9}), in (\S{1,200})', error.traceback)
        where = f" ({frames[-1][0]}, line {frames[-1][1]}, in {frames[-1][2]})" if frames else ""
        return f"the plugin raised {error}{where}"
    return f"the worker crashed: {error}" if isinstance(error, WorkerCrash) else str(error)


def tell(text: str) -> None:
    """One line on stderr; whatever a plugin put into it is made harmless."""
    from fxcell.host.effects.basic import visible

    print(f"fxcell: {visible(' '.join(text.split()))}", file=sys.stderr)
