"""The effects that fxcell ships: what each asks for, what it answers, what it opens.

An effect opens nothing by being named here. A worker may ask for it only when its policy lists it, and the host
performs it: the worker itself has no files, no network, no clock of the host to set.
"""

from __future__ import annotations

import os
from typing import Any, Literal

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
    """Answer the bytes of one regular file below a directory that the policy's rule grants; no link is followed.

    path: absolute, in its exact spelling: no "..", no doubled slash.
    Does not stop: reading through a hard link or a mount point that somebody else put below the directory.
    """

    path: str


class WriteFile(Effect):
    """Write one regular file below a directory that the policy's rule grants, and answer None when it is on disk.

    path:    absolute, in its exact spelling; no symbolic link on the way is followed. Directories on the way must be
             there, unless the rule has create_parents.
    content: all of it, exactly; a str is encoded by the caller.
    mode:    create: fails when anything has that name. replace: takes the place of the file of that name, if there is one.
             append: adds to its end, or makes it.
    After:   create and replace are atomic: whoever looks sees nothing or the old file, then the new one, also after a crash
             of the host. An append that fails is taken back; one that the host does not survive can be there in part.
    Opens:   new files of mode 0644 less the host's umask, never executable; a replaced file never gets wider rights than it
             had, but belongs to the host's user. An append to a file with several names (hard links) is refused.
    Quotas:  max_bytes for the file, max_total_bytes and max_files for the granted directory as it is on disk; one writer
             at a time, also among hosts. While a file is replaced, both its contents are on disk.
    Does not stop: a file whose content harms whoever loads or starts it: grant no directory of code.
    """

    path: str
    content: bytes
    mode: Literal["create", "replace", "append"] = "replace"


class ListDirectory(Effect):
    """Answer what is in one directory that the policy's rule grants: a list of dicts, sorted by the bytes of the names.

    path:    absolute, in its exact spelling: a granted directory or one below it.
    Answers: name (str; bytes where it is not valid UTF-8, and then no effect can name it), kind (file, directory or other:
             links, FIFOs, sockets, devices), size_bytes (int; None unless it is a file).
    Does not open: links' targets, what is in the directories below, or files that the host is about to write. A directory
             with more names than max_entries is an error: no part of a list is taken for the whole.
    """

    path: str


class DeleteFile(Effect):
    """Remove one regular file below a directory that the policy's rule grants. Answers None.

    path: absolute, in its exact spelling; no symbolic link on the way is followed, and none is removed.
    Does not open: directories, links, FIFOs, sockets, devices. A file with several names (hard links) loses this one.
    """

    path: str


class GetEnvironment(Effect):
    """Answer one variable of the host's environment as a str, or None where it is not set.

    name: exactly one that the policy's rule names.
    Does not open: any other variable, or the list of their names.
    """

    name: str


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
