"""`fxcell run`: one plugin, one call, in a hardened worker."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fxcell.host.commands import exits
from fxcell.policies.errors import EffectDenied, FxcellError, PluginError, PluginNotUsable, UserError


def run_plugin(
    target: str, policy: str, given: Sequence[str], *, as_json: bool, deadline_s: float | None, audit_file: str | None = None
) -> int:
    """Run PATH[:FUNCTION] under a policy, print what came of it, answer the exit code.

    audit_file: where each decision is recorded (fxcell.host.audit), or None.
    given: "name=value" texts; a value that parses as JSON is that JSON, any other is itself.
    After: nothing of the worker is left. With as_json stdout holds one JSON object, and what the plugin prints goes to
           stderr.
    """
    from fxcell.host.commands.shown import readable, to_json

    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), _audited(audit_file):
            value = _answer(target, policy, given, deadline_s)
    except FxcellError as error:
        _tell(_line_of(error))
        if as_json:
            print(to_json(_to_dict(error)))
        return exits.code_of(error)
    except KeyboardInterrupt:
        _tell("interrupted; the worker was ended")
        return exits.INTERRUPTED
    print(to_json({"outcome": "value", "value": value}) if as_json else readable(value))
    return exits.VALUE


def _audited(audit_file: str | None) -> contextlib.AbstractContextManager[object]:
    if audit_file is None:
        return contextlib.nullcontext()
    from fxcell.host import audit

    return audit.to_file(audit_file)


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


def _answer(target: str, policy_name: str, given: Sequence[str], deadline_s: float | None) -> Any:
    if deadline_s is not None and not (math.isfinite(deadline_s) and deadline_s > 0):
        raise UserError(f"--deadline must be a number of seconds above 0, got {deadline_s}")
    from fxcell import FX, load_policy
    from fxcell.host import shutdown
    from fxcell.host.plugins import load_plugin, narrowed
    from fxcell.host.runtime import run

    arguments = parse_arguments(given)
    plugin = load_plugin(*split_target(target))
    policy = load_policy(policy_name)
    try:
        worker = FX.StartWorkerProcess(policy=narrowed(policy, plugin)) | run
        command = FX.SendCommandToWorkerProcess(
            process=worker, command=plugin.call(**arguments), deadline_s=deadline_s
        )
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
        shutdown()


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


def _tell(text: str) -> None:
    """One line on stderr; whatever a plugin put into it is made harmless."""
    from fxcell.host.effects.basic import visible

    print(f"fxcell: {visible(' '.join(text.split()))}", file=sys.stderr)
