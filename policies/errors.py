"""The exceptions that fxcell raises, and whose mistake each one is. (The audit log has one more: AuditError, host/audit/chain.py.)

FxcellError
├── UserError                    the caller's: the text says what to change
│   ├── EffectError              an FX value with an unknown, missing or mistyped field
│   ├── PolicyError              a policy file or value, with file and line
│   ├── EncodeError              a value that cannot travel, and where in it
│   ├── MessageTooLarge          a value over the policy's message_bytes
│   ├── WorkerStopped            a command for a worker that is not there any more
│   ├── PluginNotUsable          a plugin file, folder or entry that cannot be run
│   ├── PoolClosed               a command for a pool that takes none any more
│   └── RecordError              a record of a run that cannot be read, used or written
├── PoolUnavailable              a pool cannot start workers, and does not try for a while
├── PoolBusy                     no worker of a pool was free, or its queue had no room, in time
├── IsolationUnavailable         this machine lacks a layer the policy requires: layer, cause, fix
├── OutOfDescriptors             this process may not open what a worker takes of it: limit, fix
├── KernelRefused                one system call failed: step, errno
├── DecodeError                  bytes that are not what they should be
├── InternalError                our bug: please report it
└── OutcomeError                 how a command ended; `run` raises it, `run.outcome` returns it
    ├── PluginError              the plugin's code raised
    ├── EffectDenied             the policy does not grant an effect: effect, field, rule, what to add
    ├── EffectFailed             a granted effect could not be performed
    ├── Quarantined              a pool refuses an input that crashed its workers again and again
    └── WorkerCrash              the worker died (fxcell.policies.crash)
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any


class FxcellError(Exception):
    """Base of all errors of this package."""


class UserError(FxcellError):
    """Something the caller wrote cannot work; the text says what to change."""


class EffectError(UserError):
    """An FX value or call was built wrongly."""


class PolicyError(UserError):
    """A policy cannot be used.

    file: where it was read from, or None for a policy made in Python.
    line: 1-based line in the file, or None.
    at:   the keys that lead to what is wrong, such as ("limits", "memory"); () for the policy as such.
    """

    def __init__(
        self, message: str, file: str | None = None, line: int | None = None, *, at: tuple[str, ...] = ()
    ) -> None:
        place = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        super().__init__(place + message)
        self.message = message
        self.file = file
        self.line = line
        self.at = at


class EncodeError(UserError):
    """A value is of a type that does not travel between processes."""


class MessageTooLarge(UserError):
    """A value is over the cap for messages."""


class WorkerStopped(UserError):
    """The worker this command is for has been stopped, or has crashed before."""


class PluginNotUsable(UserError):
    """A plugin's file, manifest or entry cannot be used."""


class RecordError(UserError):
    """A record of a run cannot be read, used or written."""


class PoolClosed(UserError, RuntimeError):
    """The pool takes no more commands. A RuntimeError too, as executors raise when they have been shut down."""


class PoolUnavailable(FxcellError):
    """Starts of workers failed one after the other; the pool refuses commands until it tries again. The last is chained."""


class PoolBusy(FxcellError):
    """No worker of the pool was free, or its queue had no room, within the pool's wait_s. The command was not begun."""


class IsolationUnavailable(FxcellError):
    """A layer that the policy requires cannot be had on this machine. Nothing was started.

    layer: name of the layer, as in the policy and in `Enforced`.
    cause: what the kernel said.
    fix:   what the machine's owner can do about it.
    """

    def __init__(self, layer: str, cause: str, fix: str) -> None:
        super().__init__(f"the layer {layer!r} is required and cannot be had here: {cause}. To fix it: {fix}")
        self.layer = layer
        self.cause = cause
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        return (IsolationUnavailable, (self.layer, self.cause, self.fix))


class OutOfDescriptors(FxcellError):
    """The host process has as many files open as it may, and a worker needs some more in it. Nothing was started.

    limit: how many it may have: the soft RLIMIT_NOFILE.        hard: up to where it may raise that itself.
    """

    def __init__(self, limit: int, hard: int) -> None:
        lift = (
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({hard}, {hard})) in this process, `ulimit -n {hard}` before it starts"
            if hard > limit
            else "LimitNOFILE= of its systemd unit, `--ulimit nofile=` of its container, or /etc/security/limits.conf"
        )
        super().__init__(
            f"this process may have {limit} files open, and has no room for what a worker takes (3 each). "
            f"Stop workers, or raise the limit: {lift}"
        )
        self.limit = limit
        self.hard = hard

    def __reduce__(self) -> tuple[Any, ...]:
        return (OutOfDescriptors, (self.limit, self.hard))


class KernelRefused(FxcellError, OSError):
    """A system call failed: which step, which errno."""

    def __init__(self, step: str, number: int, call: str) -> None:
        name = errno.errorcode.get(number, str(number))
        text = f"could not {step}: {call} answered {name}"
        OSError.__init__(self, number, text)
        self.step = step
        self.call = call

    def __str__(self) -> str:
        return str(self.args[1])


class DecodeError(FxcellError):
    """Bytes are not what they should be: malformed, over a limit, or of a kind not allowed there."""


class InternalError(FxcellError):
    """A state that cannot be: a bug in fxcell. Please report it with the text."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. This is a bug in fxcell, not in your code: please report it.")


class OutcomeError(FxcellError):
    """A command ended otherwise than with a value."""

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain, stable data."""
        return {"outcome": type(self).__name__, "message": str(self)}


def printable(text: str) -> str:
    """Text from a worker with every control character but line ends and tabs written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


class Quarantined(OutcomeError):
    """A pool refuses a command that crashed its workers as often as the pool accepts. It was not begun.

    digest: SHA-256 of the command and its code, in hex.        reasons: why each worker ended, words of WorkerCrash.
    """

    def __init__(self, digest: str, reasons: Sequence[str]) -> None:
        super().__init__(
            f"the command {digest[:12]} has crashed {len(reasons)} workers ({', '.join(reasons)}) and is not run any more; "
            "to let it in again: pool.quarantine.release(digest)"
        )
        self.digest = digest
        self.reasons = tuple(reasons)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Quarantined, (self.digest, self.reasons))


class PluginError(OutcomeError):
    """The plugin's own code raised an exception. All fields are text that the plugin controls.

    type_name: name of the exception's class.        message: its str(), cut to 4,000 characters.
    traceback: as Python prints it, cut to 16,000 characters.
    """

    def __init__(self, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return (PluginError, (self.type_name, self.message, self.traceback))

    def to_dict(self) -> dict[str, Any]:
        """As OutcomeError, with type and traceback."""
        return {
            "outcome": "PluginError",
            "type": self.type_name,
            "message": self.message,
            "traceback": self.traceback,
        }


class EffectDenied(OutcomeError):
    """The worker's policy does not grant an effect.

    effect:     name of the effect.                  field: the field that decided, or None for the effect as such.
    rule:       the rule that decided, in words.     policy: name of the policy.
    suggestion: the line to add to the policy, or "" where nothing can be added.
    """

    def __init__(self, effect: str, field: str | None, rule: str, policy: str, suggestion: str) -> None:
        what = f"FX.{effect}" + (f", field {field!r}," if field else "")
        advice = f" To allow it, add to the policy: {suggestion}" if suggestion else " No policy can grant it."
        super().__init__(f"{what} is denied by policy {policy!r}: {rule}.{advice}")
        self.effect = effect
        self.field = field
        self.rule = rule
        self.policy = policy
        self.suggestion = suggestion

    def __reduce__(self) -> tuple[Any, ...]:
        return (EffectDenied, (self.effect, self.field, self.rule, self.policy, self.suggestion))

    def to_dict(self) -> dict[str, Any]:
        """As OutcomeError, with what was denied and why."""
        return {
            "outcome": "EffectDenied",
            "effect": self.effect,
            "field": self.field,
            "rule": self.rule,
            "policy": self.policy,
            "suggestion": self.suggestion,
            "message": str(self),
        }


class EffectFailed(OutcomeError):
    """A granted effect could not be performed.

    effect: name of the effect.        kind: short stable word such as not_found, timeout, too_large, connection.
    """

    def __init__(self, effect: str, kind: str, message: str) -> None:
        super().__init__(f"FX.{effect} failed ({kind}): {message}")
        self.effect = effect
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return (EffectFailed, (self.effect, self.kind, self.message))

    def to_dict(self) -> dict[str, Any]:
        """As OutcomeError, with effect and kind."""
        return {"outcome": "EffectFailed", "effect": self.effect, "kind": self.kind, "message": self.message}
