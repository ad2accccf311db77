"""`fxcell policy learn`: one run under the widest filter, trials under less, and the smallest policy that passes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fxcell.host.commands import exits
from fxcell.host.commands.run import parse_arguments, split_target, tell
from fxcell.host.learning_tapes import Mode
from fxcell.policies.errors import FxcellError, UserError


def learn_policy(target: str, given: Sequence[str], output: str | None, mode: Mode) -> int:
    """Learn a policy and print it, or write it to a file that is not there yet; answer the exit code of exits.LEARN_HELP.

    given: "name=value" texts, as for `fxcell run`.
    After: nothing of the workers is left. What the plugin prints goes to stderr, for stdout is the policy.
    """
    import contextlib

    from fxcell.host import shutdown
    from fxcell.host.learning import learn
    from fxcell.host.learnt_text import learnt_text
    from fxcell.host.plugins import load_plugin

    try:
        if output is not None and os.path.lexists(output):
            raise UserError(f"{output!r} exists already: a policy is not written over; give another name")
        arguments = parse_arguments(given)
        with contextlib.redirect_stdout(sys.stderr):
            learnt = learn(load_plugin(*split_target(target)), arguments, mode)
        if learnt.policy is None:
            tell(f"nothing was learnt: {learnt.fault}")
            unusable = getattr(learnt.outcome, "type_name", "") == "PluginNotUsable"
            return exits.USAGE if unusable else exits.DIFFERENT
        # Names alone: a value can be a secret, and policies are shared.
        _put(learnt_text(learnt, f"{os.path.basename(target)}({', '.join(arguments)})"), output)
    except FxcellError as error:
        tell(str(error))
        return exits.USAGE if exits.code_of(error) == exits.USAGE else exits.SANDBOX
    except KeyboardInterrupt:
        tell("interrupted; the worker was ended")
        return exits.INTERRUPTED
    finally:
        shutdown()
    for name, count in sorted(learnt.simulated.items()):
        tell(f"FX.{name} was simulated, {count} of {learnt.asked[name]}: what a real answer leads to was not seen")
    return exits.VALUE


def _put(text: str, output: str | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise UserError(f"the policy cannot be written to {output!r}: {error}") from error
