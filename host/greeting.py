"""How a worker starts: its supervisor listens, it says hello, and what it says of its own lockdown is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import capnp

from fxcell.host import cgroups
from fxcell.host.diagnose import HostCause
from fxcell.host.ending import Handles
from fxcell.host.template_process import Template
from fxcell.policies.crash import Reason
from fxcell.policies.policy import Policy
from fxcell.sandbox import enforced, wire
from fxcell.sandbox.worker import PROTOCOL


@dataclass(frozen=True, slots=True)
class Greeting:
    """The layers that are in force in a worker, and what it read back of each: layer -> values."""

    layers: tuple[str, ...]
    enforced: dict[str, dict[str, Any]]


class NotReady(Exception):
    """The worker, or its supervisor, ended or said something else. `cause` is why the host ends it, None where it ended."""

    def __init__(self, cause: HostCause | None, *, mid_frame: bool = False) -> None:
        super().__init__()
        self.cause = cause
        self.mid_frame = mid_frame


def await_greeting(handles: Handles, template: Template, policy: Policy, deadline: float) -> Greeting:
    """Wait until the worker is ready, check its report, and see to it that it is in its group.

    deadline: time.monotonic() seconds.
    After:    the worker can be given commands.
    Raises:   NotReady; IsolationUnavailable - a layer is not in force; InternalError - the report is not one.
    """
    try:
        listening = handles.report.receive(deadline)
        if listening.which() != "listening":
            handles.note_ended(listening)
            raise NotReady(None)
        handles.channel.end_with(handles.report)
        hello = handles.channel.receive(deadline)
        if hello.which() != "hello" or hello.hello.protocol != PROTOCOL:
            raise NotReady(HostCause(Reason.PROTOCOL_VIOLATION, f"the worker greeted with {hello.which()}"))
        report = hello.hello.enforced
    except wire.ChannelClosed as closed:
        raise NotReady(None, mid_frame=closed.mid_frame) from closed
    except (wire.WireError, capnp.KjException) as error:
        raise NotReady(HostCause(Reason.PROTOCOL_VIOLATION, str(error))) from error
    except wire.DeadlinePassed as passed:
        raise NotReady(HostCause(Reason.DEADLINE, f"not ready within {policy.limits.start_s} s")) from passed
    layers = enforced.check(
        template.plan, policy.limits, report, outside=template.outside, in_memory_cgroup="memory" in cgroups.places()
    )
    if not handles.enter_cgroup():
        raise NotReady(None)
    return Greeting(layers, enforced.decoded(report))
