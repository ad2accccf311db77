"""What the host holds of one worker (sockets, pidfd, cgroup), and how it lets go of it: always completely.

end()     a worker that died or must die: report, pidfd, cgroup -> Facts -> reason
close()   a worker that nobody wants an explanation for
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from fxcell.host import cgroups, templates, watching
from fxcell.host.diagnose import Facts, HostCause, diagnose
from fxcell.host.template_process import Template, spinning_helps
from fxcell.host.watching import CpuMeter
from fxcell.policies import decoded_size
from fxcell.policies.crash import DeniedSyscall, Reason, ResourceUse
from fxcell.policies.errors import IsolationUnavailable
from fxcell.policies.policy import Policy
from fxcell.sandbox import wire
from fxcell.sandbox.kernel import processes

_NOTICE_PATIENCE_S = 0.5
"""How long a supervisor may take to report a worker whose channel closed: longer, and the worker is not dead at all."""
_REPORT_PATIENCE_S = 2.0
_END_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """How one worker ended: the verdict and what it rests on."""

    reason: Reason
    detail: str
    facts: Facts
    stack: str
    stdout_tail: str
    stderr_tail: str
    user_s: float
    system_s: float
    peak_bytes: int

    @property
    def signal(self) -> int | None:
        """The signal that ended the worker, if one did."""
        status = self.facts.status
        return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None

    @property
    def exit_code(self) -> int | None:
        """The worker's exit status, if it exited."""
        status = self.facts.status
        return os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None

    def use(self, wall_s: float) -> ResourceUse:
        """The worker's use of resources."""
        return ResourceUse(self.user_s, self.system_s, wall_s, self.peak_bytes)


class Handles:
    """The host's ends of one worker."""

    def __init__(self, policy: Policy, template: Template, deadline: float) -> None:
        """Take a worker from the template, and the group that it is in, or make one.

        deadline: time.monotonic() seconds. Raises: IsolationUnavailable, WorkerCrash(start_failed); nothing is left then.
        """
        self._policy = policy
        self._released = False
        self.stop_requested = False
        self._ended: Any = None
        self._supervisor_gone = False
        self._peak = 0
        # Where there is one process alone, the kernel killing it is the end of the worker.
        self._may_fork = policy.limits.processes > 1 or not template.plan.filtered
        self._old_kills = 0
        self._namespaces = template.plan.namespaces
        spawned = template.spawn(deadline)
        self.group = spawned.group
        try:
            if self.group is None:
                self.group = cgroups.group_for(policy.limits)
        except BaseException:
            spawned.close()
            raise
        self.pid, self.pidfd = spawned.pid, spawned.pidfd
        self.meter = CpuMeter(self.pid, policy.limits, self.group)
        spin = spinning_helps()
        self.channel = wire.Channel(spawned.channel, max_value_bytes=policy.limits.message_bytes, spin=spin)
        self.channel.decoded_bytes_max = decoded_size.budget_bytes(policy.limits.memory_bytes)
        self.report = wire.Channel(spawned.report, max_value_bytes=wire.FRAME_BYTES_MAX)
        self._looking, self._signalling = threading.Lock(), threading.Lock()
        self._end_poller = select.poll()
        self._end_poller.register(self.pidfd, select.POLLIN)
        # POLLHUP comes some milliseconds before the supervisor has ended too.
        self._end_poller.register(self.channel.fileno(), 0)

    def enter_cgroup(self) -> bool:
        """See to it that the worker is in its group, and seen, before it gets any command; False when it has ended already.

        Before:  the worker has greeted. Raises: IsolationUnavailable.
        """
        step, fix = "seen", "mount /proc without hidepid, or with the gid= of this user (under systemd: no ProtectProc)"
        try:
            (worker,) = processes.children_of(self.pid)
            if not processes.state_of(worker):  # its CPU time would be 0 for ever
                raise ValueError("there is no process of that number in /proc")
            step, fix = "put into its cgroup", "report this with your cgroup set-up"
            if self.group is not None and not self.group.holds(worker):
                self.group.enter(worker)
        except (OSError, ValueError) as error:
            if self.gone_within(_NOTICE_PATIENCE_S):
                return False
            raise IsolationUnavailable("limits", f"the worker could not be {step}: {error}", fix) from error
        return True

    def begin_command(self) -> None:
        """Remember how many children the kernel has killed for memory so far: this command's end is not their doing."""
        if self._may_fork and self.group is not None:
            self._old_kills = self.group.oom_kills()

    def gone_within(self, seconds: float) -> bool:
        """Wait at most that long for the worker's end of the channel to close; True when it did."""
        poller = select.poll()
        poller.register(self.channel.fileno(), 0)  # POLLHUP and POLLERR come unasked
        return bool(poller.poll(seconds * 1000))

    @property
    def ended(self) -> bool:
        """True once the worker's end of the channel or its supervisor is gone; asked of the kernel, without waiting.

        Also once this host has ended it: the kernel takes a moment, in which it would be given the next command.
        """
        if self.pidfd < 0 or self.stop_requested:
            return True
        with self._looking:  # one thread at a time may use a poll object
            return bool(self._end_poller.poll(0))

    def note_ended(self, message: Any) -> None:
        """Keep a report that came where another message was expected."""
        if message.which() == "ended":
            self._ended = message.ended

    def kill(self) -> bool:
        """End the supervisor and everything below it; False when it had ended already.

        A pid namespace ends with its process 1. Without one only the supervisor finds what forked and left its parent, so
        it is asked first, and killed when it does not end in time.
        """
        pidfd = self.pidfd
        if pidfd < 0:
            return False
        if not self._namespaces:
            self._ask_to_end(with_stack=False)
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            if poller.poll(_REPORT_PATIENCE_S * 1000):
                return True
        with self._signalling:  # once closed, the number can be of another worker's pidfd
            return self.pidfd >= 0 and processes.kill(self.pidfd, signal.SIGKILL)

    def _ask_to_end(self, *, with_stack: bool) -> None:
        message = wire.Message.new_message()
        message.init("kill").withStack = with_stack
        with contextlib.suppress(OSError, wire.DeadlinePassed):
            self.report.send(message, deadline=time.monotonic() + 0.1)

    def end(
        self, template: Template, cause: HostCause | None, *, ready: bool, mid_frame: bool, memory_error: bool
    ) -> End:
        """Find out how the worker ended, ending it first when `cause` says so, and let go of it."""
        if cause is None and not memory_error:
            self._await_report(_NOTICE_PATIENCE_S)
            if not self._told and watching.is_dead(self.pid):
                self._await_report(_REPORT_PATIENCE_S)  # its supervisor has no processor just now, or stands still
                if not self._told:
                    cause = HostCause(Reason.CONNECTION_LOST, "the worker is dead, and its supervisor does not say how it died")
            elif not self._told:
                cause = HostCause(Reason.PROTOCOL_VIOLATION, "the worker closed its channel and went on running")
        if not self._told and (cause is None or cause.reason is not Reason.CONNECTION_LOST):
            self._ask_to_end(with_stack=cause is not None and cause.reason in (Reason.DEADLINE, Reason.CPU_LIMIT))
            self._await_report(_REPORT_PATIENCE_S)
        if cause is None and self.stop_requested:
            cause = HostCause(Reason.STOPPED, "it was stopped by this host while it worked")
        supervisor_status = self._let_go(template)
        facts = self._facts(
            template,
            cause,
            ready=ready,
            mid_frame=mid_frame,
            memory_error=memory_error,
            supervisor_status=supervisor_status,
        )
        if self._ended is None and not ready:
            facts = replace(facts, last_words=template.last_words())
        self._remove_group()
        reason, detail = diagnose(facts)
        ended = self._ended
        peak = self._peak
        if ended is None:
            return End(reason, detail, facts, "", "", "", 0.0, 0.0, peak)
        return End(
            reason, detail, facts, _text(ended.stack.encode()), _text(ended.stdoutTail), _text(ended.stderrTail),
            ended.use.userS, ended.use.systemS, max(peak, ended.use.peakBytes),
        )  # fmt: skip

    def close(self, template: Template) -> None:
        """End the worker if it lives, and leave nothing behind."""
        self.kill()
        self._let_go(template)
        self._remove_group()

    @property
    def _told(self) -> bool:
        return self._ended is not None or self._supervisor_gone

    def _await_report(self, patience_s: float) -> None:
        end = time.monotonic() + patience_s
        try:
            while self._ended is None:
                self.note_ended(self.report.receive(end))
        except (wire.WireError, OSError):
            self._supervisor_gone = True
        except wire.DeadlinePassed:
            pass

    def _let_go(self, template: Template) -> int | None:
        """Wait until supervisor and worker are gone; answer the supervisor's status."""
        status = None
        if self.pidfd >= 0:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            # A supervisor that has sent its report ends by itself.
            if self._ended is None or not poller.poll(1000):
                self.kill()
            poller.poll(_END_PATIENCE_S * 1000)
            reaped = template.reaped(self.pid, time.monotonic() + _END_PATIENCE_S)
            status = None if reaped is None else reaped.status
            with self._signalling:
                pidfd, self.pidfd = self.pidfd, -1
                os.close(pidfd)
        self.channel.close()
        self.report.close()
        if not self._released:
            self._released = True
            templates.release(template)
        return status

    def _facts(
        self,
        template: Template,
        cause: HostCause | None,
        *,
        ready: bool,
        mid_frame: bool,
        memory_error: bool,
        supervisor_status: int | None,
    ) -> Facts:
        ended = self._ended
        limit = f"{self._policy.limits.memory_bytes / 2**20:g} MiB ({cgroups.describe_memory(self.group)})"
        counted = self.group is not None and "memory" in cgroups.places()
        kills = self.group.oom_kills() - self._old_kills if counted and self.group is not None else None
        peak = max(self.group.peak_bytes() if self.group is not None else 0, ended.use.peakBytes if ended is not None else 0)
        common: dict[str, Any] = {
            "ready": ready, "host_cause": cause, "memory_kills": kills, "memory_error": memory_error, "memory_limit": limit,
            "peak_bytes": peak, "mid_frame": mid_frame, "supervisor_status": supervisor_status,
            "template_alive": template.alive,
        }  # fmt: skip
        if ended is None:
            return Facts(**common)
        return Facts(
            supervisor_cause=str(ended.cause),
            status=ended.status,
            denied=_denied(ended),
            last_words=_text(ended.stderrTail),
            **common,
        )

    def _remove_group(self) -> None:
        if self.group is not None:
            self._peak = self.group.peak_bytes()
            self.group.remove()
            self.group = None


def _denied(ended: Any) -> DeniedSyscall | None:
    if ended.deniedNumber < 0:
        return None
    from fxcell.sandbox.filter import syscall_name

    return DeniedSyscall(
        syscall_name(ended.deniedNumber),
        ended.deniedNumber,
        tuple(ended.deniedArguments),
        f"{ended.deniedArchitecture:#x}",
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
