"""A template process as the host sees it: starting one, asking it for workers, hearing which of its children ended."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

import fxcell
from fxcell.host import cgroups, launcher
from fxcell.policies.crash import Evidence, Reason, WorkerCrash
from fxcell.policies.errors import IsolationUnavailable, OutOfDescriptors
from fxcell.policies.policy import Policy
from fxcell.sandbox import plan, wire
from fxcell.sandbox.kernel import namespaces, processes
from fxcell.sandbox.kernel.cgroup import Group
from fxcell.sandbox.plan import Plan
from fxcell.sandbox.probe import Probe

START_S = 30.0
"""Seconds a template may take to import what it preloads; slow disks and large libraries included."""

_BOOTSTRAP = """
import sys
try:
    import fxcell
except ImportError:
    sys.path.append(sys.argv[1])
from fxcell.sandbox.template import main
main(int(sys.argv[2]))
"""
# One thread per library: a pool of threads per core, started at import, would break every fork.
_ENVIRONMENT = {
    "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/", "TMPDIR": "/tmp",
    "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1", "RAYON_NUM_THREADS": "1",
}  # fmt: skip
_PASSED_ON = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "TZ")
"""Not secrets, and needed: which kernels a BLAS may use on this processor, and the time zone."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker and its supervisor (pid, pidfd). What is open in it belongs to the receiver, and so does the group.

    group: where the worker was told to go; None for one that was forked before there was a group for it.
    """

    pid: int
    pidfd: int
    channel: socket.socket
    report: socket.socket
    group: Group | None

    def close(self) -> None:
        """End the worker that nobody will use."""
        processes.kill(self.pidfd)
        os.close(self.pidfd)
        self.channel.close()
        self.report.close()


@dataclass(frozen=True, slots=True)
class Reaped:
    """How a supervisor ended: status as wait(2) gives it."""

    pid: int
    status: int


class Template:
    """One template process. Safe from many threads: they take turns."""

    def __init__(self, policy: Policy) -> None:
        """Start it and wait until it is ready to fork workers.

        Raises: IsolationUnavailable; WorkerCrash(start_failed) when it died or hung instead.
        """
        self.policy = policy
        cgroups.places()  # before the first child: a host can go to a leaf of its group only while it is alone there
        self._turn = threading.Lock()
        self._reaped: dict[int, Reaped] = {}
        self.spare_group: Group | None = None
        self._lost_groups: list[Group] = []
        ours, theirs = socket.socketpair()
        self._requests = 0
        self.users = 0
        self.idle_since_s = time.monotonic()
        self._errors = tempfile.TemporaryFile(prefix="fxcell-template-")  # noqa: SIM115 - closed in close()
        try:
            command = [sys.executable, "-I", "-c", _BOOTSTRAP, os.path.dirname(os.path.dirname(fxcell.__file__))]
            environment = _ENVIRONMENT | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            self.process: subprocess.Popen[bytes] = launcher.start(
                command, handed=theirs.fileno(), env=environment, output=self._errors
            )
        except BaseException:
            ours.close()
            self._errors.close()
            raise
        finally:
            theirs.close()
        self._control = wire.Channel(ours, max_value_bytes=wire.FRAME_BYTES_MAX)
        try:
            self.probe, self.outside = self._open()
            self.plan: Plan = plan.make(policy, self.probe)
        except BaseException:
            self.close()
            raise

    def _open(self) -> tuple[Probe, dict[str, int]]:
        options = {
            "policy": self.policy.worker_part().to_data(),
            "spin": spinning_helps(),
            "host_pid": os.getpid(),
            "in_memory_cgroup": "memory" in cgroups.places(),
        }
        answer = self._ask(
            wire.Message.new_message(open=msgspec.msgpack.encode(options)), (), time.monotonic() + START_S
        )
        report = msgspec.msgpack.decode(answer.opened, type=dict[str, Any])
        # The template saw these before it entered its own; what it says must agree with what we are in.
        outside = namespaces.identities(("user", "mount", "net", "ipc", "uts", "cgroup"))
        if report["outside"] != outside:
            raise IsolationUnavailable(
                "namespaces", "the template process did not start where the host is", "report this"
            )
        return Probe(**report["probe"]), outside

    def spawn(self, deadline: float) -> Spawned:
        """Get a worker that is locked down and waits.

        deadline: time.monotonic() seconds. Raises: WorkerCrash(start_failed), IsolationUnavailable, OutOfDescriptors.
        """
        refusal = None
        while True:
            with self._turn:
                check_descriptors()
                try:
                    answer, group = self._spawned(deadline)
                except WorkerCrash as late:
                    if refusal is None or time.monotonic() < deadline:
                        raise
                    raise self._not_handed_over(refusal) from late
                if answer.which() == "spawned":
                    pidfd, channel, report = self._control.take_fds()
                    return Spawned(
                        answer.spawned.pid, pidfd, socket.socket(fileno=channel), socket.socket(fileno=report), group
                    )
            if time.monotonic() + wire.IN_FLIGHT_RETRY_S >= deadline:
                raise self._not_handed_over(str(answer.failure.message))
            refusal = str(answer.failure.message)
            wire.pause(wire.IN_FLIGHT_RETRY_S)

    def _spawned(self, deadline: float) -> tuple[Any, Group | None]:
        """The template's answer, and the group of the worker in it. The group for the next one goes with the question."""
        upcoming = cgroups.group_for(self.policy.limits) if cgroups.workers_can_enter() else None
        doors = [] if upcoming is None else upcoming.doors()
        try:
            answer = self._answer(wire.Message.new_message(spawn=None), doors, deadline)
        except BaseException:
            if upcoming is not None:
                self._lost_groups.append(upcoming)  # a worker may be there, or come
            raise
        finally:
            for door in doors:
                os.close(door)
        if answer.which() != "spawned":
            if upcoming is not None:
                upcoming.remove()  # no worker came of it
            if answer.failure.kind != "in_flight":
                raise self._failure(answer.failure)
            return answer, None
        group, self.spare_group = self.spare_group, upcoming
        return answer, group

    def _not_handed_over(self, why: str) -> WorkerCrash:
        return self._failed(
            f"the worker could not be handed over before the start deadline: {why}. {wire.IN_FLIGHT_CAUSE}"
        )

    def reaped(self, pid: int, deadline: float) -> Reaped | None:
        """How the supervisor with this pid ended; None when the template does not say in time, or is gone itself."""
        with self._turn, contextlib.suppress(wire.WireError, wire.DeadlinePassed, OSError):
            while pid not in self._reaped:
                self._note(self._control.receive(deadline))
        return self._reaped.pop(pid, None)

    def _note(self, message: Any) -> bool:
        if message.which() != "reaped":
            return False
        self._reaped[message.reaped.pid] = Reaped(message.reaped.pid, message.reaped.status)
        return True

    def _ask(self, message: Any, fds: Sequence[int], deadline: float) -> Any:
        answer = self._answer(message, fds, deadline)
        if answer.which() == "failure":
            raise self._failure(answer.failure)
        return answer

    def _answer(self, message: Any, fds: Sequence[int], deadline: float) -> Any:
        try:
            self._requests += 1
            message.id = self._requests
            self._control.send(message, fds, deadline)
            while True:
                answer = self._control.receive(deadline)
                if not self._note(answer):
                    if answer.id == self._requests:
                        break
                    # To somebody whose deadline passed: a worker that came too late ends when its channel closes.
                    for descriptor in self._control.take_fds():
                        os.close(descriptor)
        except (wire.WireError, OSError) as error:
            raise self._failed(f"the template process ended: {self.last_words() or error}") from error
        except wire.DeadlinePassed as error:
            raise self._failed(f"the template process did not answer in time. {self.last_words()}") from error
        return answer

    def _failure(self, failure: Any) -> Exception:
        if failure.kind == "isolation":
            details = msgspec.msgpack.decode(failure.details, type=dict[str, str])
            return IsolationUnavailable(details["layer"], details["cause"], details["fix"])
        return self._failed(f"{failure.typeName}: {failure.message}\n{failure.traceback}".strip())

    def _failed(self, detail: str) -> WorkerCrash:
        return WorkerCrash(Reason.START_FAILED, detail, Evidence(policy=self.policy.digest[:12]))

    def last_words(self) -> str:
        """The end of what the template and its supervisors wrote to stderr: only failures write there."""
        if self._errors.closed:
            return ""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4000))
        return self._errors.read().decode("utf-8", "backslashreplace").strip()

    @property
    def alive(self) -> bool:
        """False once the process has ended."""
        if self.process.returncode is not None:
            return False
        try:
            # Not poll(): an interrupt in it leaves Popen's own lock locked, and who waits for the end would wait for ever.
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def _ended_within(self, seconds: float) -> bool:
        if not self.alive:
            return True
        pidfd = os.pidfd_open(self.process.pid)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            return bool(poller.poll(seconds * 1000))
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """End the template, and with it every supervisor and worker it still has."""
        self._control.close()
        if not self._ended_within(_END_S):
            self.process.kill()
            self._ended_within(_KILLED_S)
        with contextlib.suppress(subprocess.TimeoutExpired):  # an interrupt has left Popen's lock locked for ever
            self.process.wait(timeout=1)
        self._errors.close()
        for group in (self.spare_group, *self._lost_groups):
            if group is not None:
                group.remove()
        self.spare_group, self._lost_groups = None, []


_END_S, _KILLED_S = 2.0, 10.0
"""How long a template may take for its end, and the kernel for that of a killed one."""
_DESCRIPTORS_NEEDED = 12
"""What starting a template opens for a moment, and more than comes with a worker, which stay."""


def check_descriptors() -> None:
    """Raise OutOfDescriptors unless a worker, and its template, can be started. The kernel drops what finds no room."""
    copies: list[int] = []
    try:
        copies.extend(os.eventfd(0, os.EFD_CLOEXEC) for _ in range(_DESCRIPTORS_NEEDED))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OutOfDescriptors(*resource.getrlimit(resource.RLIMIT_NOFILE)) from error
    finally:
        for descriptor in copies:
            os.close(descriptor)


def spinning_helps() -> bool:
    """True where a second CPU can run the other side while this one waits without sleeping."""
    return len(os.sched_getaffinity(0)) > 1
