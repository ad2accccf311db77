"""The effects that fxcell ships: what each asks for, what it answers, what it opens.

An effect opens nothing by being named here. A worker may ask for it only when its policy lists it, and the host
performs it: the worker itself has no files, no network, no clock of the host to set.
"""

from __future__ import annotations

import os
from typing import Any

from fxcell.policies import values
from fxcell.policies.effects import Effect, WorkerProcess
from fxcell.policies.errors import DecodeError, PolicyError
from fxcell.policies.policy import Policy


class Print(Effect):
    """Write str(content) as one line on the host's standard output, control characters escaped. Answers None."""

    content: Any


class Log(Effect):
    """Write one record to the host's logger `fxcell.plugin`, labelled with the worker. Answers None.

    level: debug, info, warning or error.
    """

    message: str
    level: str = "info"
    data: dict[str, Any] = {}


class Now(Effect):
    """Answer the host's wall clock in seconds since 1970 (float)."""


class Sleep(Effect):
    """Wait on the host's side for `seconds`, at most until the command's deadline. Answers None."""

    seconds: float


class RandomBytes(Effect):
    """Answer `count` bytes from the host kernel's random source."""

    count: int


class HTTPRequest(Effect):
    """Have the host perform one HTTP request, redirects followed and each re-checked.

    Answers a dict: status (int), headers (dict of str), body (bytes), url (str, after redirects).
    Does not open: sockets, name lookups of the worker's own, or any host the policy's rule does not name.
    """

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    body: bytes = b""
    timeout_s: float = 30.0


class ReadFile(Effect):
    """Answer the bytes of one regular file below a directory that the policy's rule grants; no link is followed."""

    path: str


class StartWorkerProcess(Effect):
    """Start a hardened worker under a policy (name of a shipped profile, path of a TOML file, or a Policy).

    Answers its WorkerProcess. Raises IsolationUnavailable, PolicyError, or WorkerCrash(start_failed).
    """

    policy: str | Policy = "compute"

    def __init__(self, *unnamed: Any, **given: Any) -> None:
        if isinstance(given.get("policy"), os.PathLike):
            given["policy"] = os.path.abspath(given["policy"])  # a path, whatever it looks like: never a profile's name
        super().__init__(*unnamed, **given)


class SendCommandToWorkerProcess(Effect):
    """Run a command (an effect, a call, a list of them, or a plain value) in a worker; answers its result.

    deadline_s: seconds for this command, at most the policy's wall_s, which is the default.
    Raises PluginError, EffectDenied, EffectFailed, WorkerCrash, or WorkerStopped.
    """

    process: WorkerProcess
    command: Any
    deadline_s: float | None = None


class StopWorkerProcess(Effect):
    """End a worker and everything it started. Stopping one that is gone already is not an error. Answers None."""

    process: WorkerProcess


class ListWorkerProcesses(Effect):
    """Answer a list with one dict per living worker: process, pid, policy, state, commands, started_unix_s."""


def _policy_from_parts(parts: Any, _allow_calls: bool) -> Policy:
    if type(parts) is not dict:
        raise DecodeError("a policy must be a table")
    try:
        return Policy.from_data(parts)
    except PolicyError as error:
        raise DecodeError(str(error)) from error


values.register(values.Ext.POLICY, Policy, lambda policy: policy.to_data(), _policy_from_parts)
