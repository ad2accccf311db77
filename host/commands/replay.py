"""`fxcell replay`: a recorded run once more, with the recorded answers, and where it was not the same."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from fxcell.host.commands import exits
from fxcell.host.commands.run import split_target, tell
from fxcell.policies.errors import FxcellError, OutcomeError


def replay_file(path: str, target: str | None, policy: str | None, *, as_json: bool) -> int:
    """Replay a record and say whether it was the same; answer the exit code of exits.REPLAY_HELP.

    target: PATH[:FUNCTION] to run in place of the recorded code, or None.
    policy: in place of the recorded one, or None.
    After:  nothing of the worker is left. What the plugin prints goes to stderr, for stdout is the comparison.
    """
    from fxcell import load_policy
    from fxcell.host import shutdown
    from fxcell.host.effects.basic import visible
    from fxcell.host.plugins import load_plugin
    from fxcell.host.records import read_record
    from fxcell.host.replaying import replay

    try:
        record = read_record(path)
        plugin = None if target is None else load_plugin(*split_target(target))
        given = None if policy is None else load_policy(policy)
        with contextlib.redirect_stdout(sys.stderr):
            done = replay(record, plugin=plugin, policy=given)
    except FxcellError as error:
        tell(str(error))
        return exits.USAGE if exits.code_of(error) == exits.USAGE else exits.SANDBOX
    except KeyboardInterrupt:
        tell("interrupted; the worker was ended")
        return exits.INTERRUPTED
    finally:
        shutdown()
    if as_json:
        _print_json(done)
    else:
        effects = sum(len(command.effects) for command in record.commands)
        name = record.plugin_name or "the command"
        for divergence in done.divergences:
            print(visible(f"diverged: {divergence}"))
        if done.same:
            print(visible(f"same: {name}, {effects} effect{'s' * (effects != 1)}, {_ending(done.outcomes[-1:])}"))
    return exits.VALUE if done.same else exits.DIFFERENT


def _ending(outcomes: tuple[Any, ...]) -> str:
    if not outcomes:
        return "no command"
    return f"{type(outcomes[0]).__name__}: {outcomes[0]}" if isinstance(outcomes[0], OutcomeError) else "the same result"


def _print_json(done: Any) -> None:
    from fxcell.host.commands.shown import to_json

    outcomes = [
        outcome.to_dict() if isinstance(outcome, OutcomeError) else {"outcome": "value", "value": outcome}
        for outcome in done.outcomes
    ]
    divergences = [{"what": d.what, "command": d.command, "effect": d.effect, "text": d.text} for d in done.divergences]
    print(to_json({"same": done.same, "divergences": divergences, "outcomes": outcomes}))
