"""The exit codes of the command line, all in one place."""

from __future__ import annotations

from fxcell.policies.crash import Reason, WorkerCrash
from fxcell.policies.errors import EffectDenied, EffectFailed, FxcellError, PluginError, UserError

VALUE = 0
PLUGIN_ERROR = 1
DIFFERENT = 1
"""Of the commands that compare: two policies, a run and its record, a policy and what it ought to be."""
USAGE = 2
DENIED = 3
EFFECT_FAILED = 4
CRASH = 120
SANDBOX = 125
SIGNAL = 128
INTERRUPTED = 130

HELP = """\b
Exit codes:
    0  the plugin answered with a value
    1  the plugin's code raised an exception
    2  usage: a path, a policy, an option or an argument cannot be used
    3  the policy does not grant an effect that the plugin asked for
    4  a granted effect could not be performed
  120  the worker crashed without a signal (it exited by itself, or was lost)
  125  the sandbox could not be built, or fxcell itself failed
128+N  signal N ended the worker: 139 for SIGSEGV, 134 for SIGABRT; 137 also where
       fxcell ended it (deadline, memory, a denied system call, broken protocol)
  130  interrupted by Ctrl-C
"""

SELFTEST_HELP = """\b
Exit codes:
    0  every attack was contained
    1  at least one was not: see the rows marked NOT CONTAINED
    2  usage: the policy cannot be read, or shows all there is
  125  the sandbox could not be built, or fxcell itself failed
  130  interrupted by Ctrl-C
Verdicts: ok; granted (it worked, and the policy's `allow` says that it may);
NOT CONTAINED; skipped (with the reason).
"""

REPLAY_HELP = """\b
Exit codes:
    0  the same: plugin, policy, effects in their order, and how it ended
    1  it diverged: each line says where; after another effect there are no more
       recorded answers, and the plugin gets EffectFailed (diverged)
    2  usage: the record is damaged or cannot be used, or a plugin or policy
  125  the sandbox could not be built, or fxcell itself failed
  130  interrupted by Ctrl-C
"""

LEARN_HELP = """\b
Learning runs the code: in a hardened worker, but with a wider filter than any plugin
needs (every word of `allow`) and with larger limits. No file, network or process of
the host is within its reach, except by effects:
  by default    Print, Log, Now, Sleep, RandomBytes and reading (ReadFile and the like)
                are performed, whatever is named; so are GET and HEAD to hosts that are
                not private, until something was read. All other effects are simulated.
  --perform     all effects are performed, whatever the plugin asks for
  --simulate    none is
Exit codes:
    0  learnt, and the plugin passes under it
    1  nothing was learnt: the plugin did not end with a value, or never does the same
    2  usage: the plugin, an argument or the output cannot be used
  125  the sandbox could not be built, or fxcell itself failed
  130  interrupted by Ctrl-C
"""

DIFF_HELP = """\b
Exit codes:
    0  the policies have one digest: they allow the same, written the same
    1  they differ
    2  a policy cannot be used
"""

CHECK_HELP = """\b
Exit codes:
    0  the policy can be used; warnings do not change that
    1  with --strict: there are warnings
    2  the policy cannot be used: the line on stderr has file and line
"""


def code_of(error: FxcellError) -> int:
    """The exit code for an outcome or a refusal."""
    if isinstance(error, WorkerCrash):
        if error.reason is Reason.START_FAILED:
            return SANDBOX
        return CRASH if error.evidence.signal is None else SIGNAL + error.evidence.signal
    for kind, code in (
        (PluginError, PLUGIN_ERROR),
        (EffectDenied, DENIED),
        (EffectFailed, EFFECT_FAILED),
        (UserError, USAGE),
    ):
        if isinstance(error, kind):
            return code
    return SANDBOX
