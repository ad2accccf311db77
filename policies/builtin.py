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
    """Write str(content) as one line on the host's standard output, control characters escaped. Answers None.

    content: anything; what is long is cut.
    """

    content: Any


class Log(Effect):
    """Write one record to the host's logger `fxcell.plugin`, labelled with the worker. Answers None.

    message: one line; control characters are escaped.
    level:   debug, info, warning or error.
    data:    plain values to go with it, by name.
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
    url:       http:// or https://, without user name and password; at most 8,192 characters.
    method:    in capitals; one that the rule's `methods` name (GET and HEAD where it names none).
    headers:   name -> value of the request. Those that decide where it goes or ends (Host, Content-Length, …) are the host's,
               and so are those that the rule's `secrets` fill.
    body:      bytes of the request; at most the rule's max_body_bytes, which also bounds the decoded body of the answer.
    timeout_s: seconds for all of it, redirects included; finite, more than 0, at most until the command's deadline.
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
    Quotas:  max_bytes for the file, quota_bytes and max_files for the granted directory as it is on disk; one writer
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


class KeyValueGet(Effect):
    """Answer the bytes that the plugin keeps under a key, or None.

    Every plugin has one SQLite file of its own, which the host names after the plugin the worker was started for; workers
    of one plugin share it, at the same time too. Opens nothing of another plugin's.

    key: 1 to 512 bytes in UTF-8, compared exactly.
    """

    key: str


class KeyValueSet(Effect):
    """Keep a value under a key, in place of an earlier one. Answers None once it is on disk; then no crash loses it.

    key:   as for KeyValueGet.
    value: at most the rule's max_value_bytes. EffectFailed(quota): keys and values together would be over max_bytes, or the
           keys over max_keys.
    """

    key: str
    value: bytes


class KeyValueDelete(Effect):
    """Forget a key and its value. Answers whether there was one, once that is on disk.

    key: as for KeyValueGet.
    """

    key: str


class KeyValueList(Effect):
    """Answer a page of the plugin's keys, in the order of their code points.

    Answers a dict: keys (list of str), next (str, or None on the last page): give it as `after` for the next page.

    prefix: only keys that start with it.    after: only keys behind it.    limit: keys in this page, 1 to 1000.
    """

    prefix: str = ""
    after: str = ""
    limit: int = 100


class CallPlugin(Effect):
    """Have another plugin run, in a worker of its own under its own policy, and answer its result.

    Opens what the other plugin does with its arguments under its policy; nothing of the caller's authority goes with it.
    The time it has is what is left of the caller's.

    plugin:    name under which the host registered it.
    arguments: keyword arguments, plain values.
    function:  one of the functions that were registered with it; "" is the first.
    """

    plugin: str
    arguments: dict[str, Any] = {}
    function: str = ""


class StartWorkerProcess(Effect):
    """Start a hardened worker under a policy (name of a shipped profile, path of a TOML file, or a Policy).

    Answers its WorkerProcess. Raises IsolationUnavailable, PolicyError, or WorkerCrash(start_failed).

    policy: as above; a path has a '/' or ends in ".toml".
    plugin: name of the plugin that the worker is for, which KeyValue effects keep state under and CallPlugin counts for
            cycles; None: it keeps none. Lower-case ASCII letters, digits, '.', '_', '-'.
    """

    policy: str | Policy = "compute"
    plugin: str | None = None

    def __init__(self, *unnamed: Any, **given: Any) -> None:
        if isinstance(given.get("policy"), os.PathLike):
            given["policy"] = os.path.abspath(given["policy"])  # a path, whatever it looks like: never a profile's name
        super().__init__(*unnamed, **given)


class SendCommandToWorkerProcess(Effect):
    """Run a command (an effect, a call, a list of them, or a plain value) in a worker; answers its result.

    process:    what FX.StartWorkerProcess answered.
    command:    what to run there.
    deadline_s: seconds for this command, at most the policy's wall_s, which is the default.
    Raises PluginError, EffectDenied, EffectFailed, WorkerCrash, or WorkerStopped.
    """

    process: WorkerProcess
    command: Any
    deadline_s: float | None = None


class StopWorkerProcess(Effect):
    """End a worker and everything it started. Stopping one that is gone already is not an error. Answers None.

    process: what FX.StartWorkerProcess answered.
    """

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
