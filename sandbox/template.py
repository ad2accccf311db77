"""The template process: a warm interpreter that workers are forked from. Trusted, single-threaded, runs no plugin code.

Started by the host by exec (host/template_process.py), one per policy. Inputs: a stream socket to the host; its first message
is `open`, a MessagePack table {policy, spin, host_pid, in_memory_cgroup}. Outputs: `opened` or `failure`; then `spawned`
or `failure` for each `spawn`, and `reaped` for each supervisor that ended.

It ends when the host's end of the socket closes, and every supervisor ends with it (PR_SET_PDEATHSIG), and every worker
with its supervisor (process 1 of its pid namespace).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import msgspec

from fxcell.policies import builtin
from fxcell.policies.errors import IsolationUnavailable, KernelRefused
from fxcell.policies.policy import Policy
from fxcell.sandbox import apply, plan, probe, supervisor, view, wire
from fxcell.sandbox.kernel import namespaces, privileges, rlimits

PROCESS_NAME = "fxcell-template"
"""What ps shows; its children are fxcell-super and fxcell-worker, the newest pair of them one that waits for a host."""

PRELOADED = (
    "cloudpickle", "json", "re", "decimal", "datetime", "math", "random", "hashlib", "zlib", "io", "collections", "itertools",
    "functools", "dataclasses", "enum", "typing", "uuid", "struct", "base64", "textwrap", "string", "statistics", "fractions",
    "threading", "queue", "fxcell.sandbox.code", "fxcell.sandbox.worker", "fxcell.sandbox.runtime", "fxcell.sandbox.output",
)  # fmt: skip
"""Imported once, before any lockdown, so that a fork has them already."""


def main(control_fd: int) -> None:
    """Serve until the host goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a host that ignores it hands that down, and nothing could be waited for
    control = wire.Channel(socket.socket(fileno=control_fd), max_value_bytes=wire.FRAME_BYTES_MAX)
    request = control.receive()
    options = msgspec.msgpack.decode(request.open, type=dict[str, Any])
    privileges.die_with_parent(options["host_pid"])
    privileges.set_process_name(PROCESS_NAME)
    rlimits.raise_to_hard("open_files")  # with it this process can hand workers over whatever those before have in flight
    try:
        prepared, report = _prepare(Policy.from_data(options["policy"]), options)
        privileges.die_with_parent(options["host_pid"])  # again: a change of ids has cleared it
    except Exception as error:  # noqa: BLE001 - the host must hear of any failure
        _send_failure(control, request.id, error)
        return
    _drop_what_workers_must_not_hold()
    gc.collect()
    gc.freeze()
    control.send(wire.Message.new_message(id=request.id, opened=msgspec.msgpack.encode(report)))
    _Template(control, prepared, spin=bool(options["spin"])).serve()


def _prepare(policy: Policy, options: dict[str, Any]) -> tuple[apply.Prepared, dict[str, Any]]:
    for name in PRELOADED:
        importlib.import_module(name)
    for name in policy.preload:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise IsolationUnavailable(
                "preload",
                f"the policy preloads {name!r}, which cannot be imported: {error}",
                f"install it, or take it out of `preload` of policy {policy.name!r}",
            ) from error
    found = probe.look()
    planned = plan.make(policy, found)
    outside = namespaces.identities(("user", "mount", "net", "ipc", "uts", "cgroup"))
    try:
        seen = view.view_for(policy.visible)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IsolationUnavailable(
            "visible",
            f"policy {policy.name!r} shows {str(error)!r}, which is not a directory",
            "make it, or take it out of `visible`",
        ) from error
    prepared = apply.prepare(policy, planned, seen, in_memory_cgroup=options["in_memory_cgroup"])
    if planned.filtered:
        try:
            apply.confine_template(prepared)
        except (KernelRefused, OSError) as error:
            layer, fix = (
                ("namespaces", "run `fxcell doctor`, which tries each step and says what to change")
                if planned.namespaces
                else ("privileges", "use an interpreter, and folders in `visible`, that every user may read")
            )
            raise IsolationUnavailable(layer, str(error), fix) from error
    sys.dont_write_bytecode = True
    return prepared, {"probe": found.to_data(), "outside": outside}


def _drop_what_workers_must_not_hold() -> None:
    # Modules of the host side are never imported here; this makes the promise hold even if one is some day.
    for name in [name for name in sys.modules if name.startswith("fxcell.host")]:
        del sys.modules[name]
    sys.argv = ["worker"]
    _ = builtin.Print  # the vocabulary must be there before the first effect is decoded


def _send_failure(control: wire.Channel, number: int, error: Exception, kind: str = "setup") -> None:
    message = wire.Message.new_message(id=number)
    failure = message.init("failure")
    failure.kind = "isolation" if isinstance(error, IsolationUnavailable) else kind
    failure.typeName = type(error).__name__
    failure.message = str(error)[:4000]
    failure.traceback = "".join(traceback.format_exception(error))[-8000:]
    if isinstance(error, IsolationUnavailable):
        failure.details = msgspec.msgpack.encode({"layer": error.layer, "cause": error.cause, "fix": error.fix})
    control.send(message)


@dataclass(frozen=True, slots=True)
class _Spare:
    """A worker that is locked down and waits: what the host gets of it."""

    pid: int
    pidfd: int
    channel: socket.socket
    report: socket.socket


class _Template:
    """Keeps one worker ahead of need: a start then waits for nothing but the handing over."""

    def __init__(self, control: wire.Channel, prepared: apply.Prepared, *, spin: bool) -> None:
        self.control = control
        self.prepared = prepared
        self.spin = spin
        self.children: dict[int, int] = {}  # pidfd -> pid
        self.spare: _Spare | None = None
        self.doors: list[int] = []  # of the group that the spare is in
        self.poller = select.poll()
        self.poller.register(control.fileno(), select.POLLIN)

    def serve(self) -> None:
        self.make_spare()
        while True:
            for descriptor, _events in self.poller.poll():
                if descriptor != self.control.fileno():
                    self.reap(descriptor)
                    continue
                try:
                    self.handle(self.control.receive())
                    while self.control.has_buffered():
                        self.handle(self.control.receive())
                except (wire.ChannelClosed, BrokenPipeError, ConnectionResetError):
                    return

    def handle(self, message: Any) -> None:
        if message.which() != "spawn":
            raise wire.WireError(f"the host sent {message.which()} to a template")
        doors = self.control.take_fds()
        try:
            spare, self.spare = self.spare or self.fork(), None
        except (KernelRefused, OSError) as error:
            _close(doors)
            _send_failure(self.control, message.id, error)
            return
        answer = wire.Message.new_message(id=message.id)
        answer.init("spawned").pid = spare.pid
        try:
            self.control.send(answer, [spare.pidfd, spare.channel.fileno(), spare.report.fileno()])
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
            self.spare = spare  # the host asks again
            _close(doors)
            _send_failure(self.control, message.id, error, kind="in_flight")
            return
        spare.channel.close()
        spare.report.close()
        _close(self.doors)
        self.doors = doors
        self.make_spare()

    def make_spare(self) -> None:
        # Where the kernel refuses now, the next request tries again, and answers with the reason.
        with contextlib.suppress(KernelRefused, OSError):
            self.spare = self.fork()

    def fork(self) -> _Spare:
        channel, workers_end = socket.socketpair()
        report, supervisors_end = socket.socketpair()
        with workers_end, supervisors_end:
            pid = namespaces.fork_into(probe.WORKER_NAMESPACES) if self.prepared.plan.namespaces else os.fork()
            if pid == 0:
                supervisor.start(
                    self.prepared, workers_end.fileno(), supervisors_end.fileno(), self.doors, spin=self.spin
                )
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid
        self.poller.register(pidfd, select.POLLIN)
        return _Spare(pid, pidfd, channel, report)

    def reap(self, pidfd: int) -> None:
        pid = self.children.pop(pidfd)
        self.poller.unregister(pidfd)
        os.close(pidfd)
        _, status, use = os.wait4(pid, 0)
        if self.spare is not None and self.spare.pid == pid:
            # It ended before anybody had it: the next request forks anew.
            self.spare.channel.close()
            self.spare.report.close()
            self.spare = None
            return
        message = wire.Message.new_message()
        reaped = message.init("reaped")
        reaped.pid, reaped.status = pid, status
        fill_use(reaped.use, use)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.control.send(message)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def fill_use(target: Any, use: Any) -> None:
    """Write what wait4(2) says of a process's use of resources into a message."""
    target.userS, target.systemS, target.peakBytes = use.ru_utime, use.ru_stime, use.ru_maxrss * 1024
