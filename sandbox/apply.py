"""The checklist: what is applied, to which process, in which order. Each function reads as its part of the list.

    template process   namespaces (user, mount, net, ipc, uts, cgroup) -> minimal root -> unprivileged ids
    supervisor         namespaces (user, mount, pid) -> scratch space -> no capabilities
    worker             cgroup, session -> descriptors -> limits -> privileges -> Landlock -> seccomp
    supervisor         the worker's limit on open files, after the listener came; then it is ready

Any step that the kernel refuses raises; nobody goes on without it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from fxcell.policies.errors import KernelRefused
from fxcell.policies.limits import Limits
from fxcell.policies.policy import Policy
from fxcell.sandbox import enforced, root
from fxcell.sandbox.filter import asked_rows, compile_filter, errno_answers, for_process
from fxcell.sandbox.kernel import landlock, namespaces, privileges, processes, rlimits, seccomp
from fxcell.sandbox.plan import Plan
from fxcell.sandbox.probe import TEMPLATE_NAMESPACES
from fxcell.sandbox.syscalls import CHANNEL_FD, MEMORY_IS_COUNTED, REPORT_FD, STACK_FD, TASKS_ARE_NOT_COUNTED, Allow
from fxcell.sandbox.view import View

INSIDE_ID = 65534
"""The user and group that workers are inside their namespaces."""

HOST_NAME = "worker"
_RESERVED_BYTES = 1024**3
_IN_FLIGHT_MARGIN = 2 * 253
"""Descriptors that two messages sent at the same moment carry at most: SCM_MAX_FD in linux/net/scm.h."""
_OPEN_FILES_MIN = 64
"""What a worker gets even where its host has so few that no margin is left."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a worker's lockdown needs, computed once per template: nothing of it can fail later for want of a file.

    proc: descriptor of the outer /proc, for what a process must write there about itself; closed before plugin code runs.
    in_memory_cgroup: the host puts each worker into a group that limits its memory.
    asked: new threads that the supervisor lets through while the limits have room, where the kernel has no count of them.
    """

    policy: Policy
    plan: Plan
    view: View
    program: bytes
    answers: dict[int, int]
    proc: int
    in_memory_cgroup: bool
    asked: Mapping[int, tuple[Allow, ...]]


def confine_template(prepared: Prepared) -> None:
    """Put the template process where all its workers will live."""
    plan = prepared.plan
    if not plan.namespaces:
        _leave_root(plan, prepared.view)
        return
    # 1. Namespaces. As root two ids are mapped: root, to reach the interpreter below closed folders, and the workers' own.
    _enter_user_namespace(plan)
    # 2. The minimal root.
    root.enter_minimal_root(prepared.view)
    os.environ["TMPDIR"] = root.scratch_folder(prepared.view)
    namespaces.set_host_name(HOST_NAME)
    # 3. Unprivileged ids, no capabilities.
    if os.geteuid() == 0:
        privileges.become(INSIDE_ID)
    privileges.drop_capabilities()
    privileges.set_no_new_privs()
    # A child must be able to write its own uid_map; it is switched off again in the worker.
    privileges.set_dumpable(True)


def _leave_root(plan: Plan, view: View) -> None:
    """The tier unprivileged: no namespaces, but never root and never a capability.

    Raises: KernelRefused - EACCES: the user that is left cannot reach the interpreter.
    """
    if os.geteuid() == 0:
        privileges.drop_bounding_set()
        privileges.become(plan.outside_uid)
    privileges.drop_capabilities()
    privileges.set_no_new_privs()
    privileges.adopt_orphans()
    for path in view.trees:
        if not os.access(path, os.R_OK):
            raise KernelRefused(f"read {path} as user {plan.outside_uid}", errno.EACCES, "access")
    privileges.set_dumpable(True)  # as below: /proc/self of the workers to come


def _enter_user_namespace(plan: Plan) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 or plan.outside_uid == 0:
        namespaces.unshare(TEMPLATE_NAMESPACES)
        namespaces.map_self(inside_id=INSIDE_ID, outside_uid=uid, outside_gid=gid)
        return
    # Only a process outside the new namespace may map more than its own id into it.
    template = os.getpid()
    ready_reader, ready_writer = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.close(ready_writer)
            if os.read(ready_reader, 1) == b"1":
                namespaces.map_for(template, {0: 0, INSIDE_ID: plan.outside_uid})
                code = 0
        os._exit(code)
    os.close(ready_reader)
    try:
        namespaces.unshare(TEMPLATE_NAMESPACES)
        os.write(ready_writer, b"1")
    finally:
        os.close(ready_writer)
        _, status = os.waitpid(mapper, 0)
    if status:
        raise KernelRefused(f"map user {plan.outside_uid} into the user namespace", 1, "write to uid_map")


def confine_supervisor(prepared: Prepared) -> None:
    """First part, before the worker is forked: what the supervisor and the worker share."""
    privileges.die_with_parent(None)
    privileges.set_process_name("fxcell-super")
    if not prepared.plan.namespaces:
        privileges.adopt_orphans()  # in place of a pid namespace: whoever is left behind comes to the supervisor
        return
    uid, gid = INSIDE_ID, INSIDE_ID
    namespaces.map_self(inside_id=INSIDE_ID, outside_uid=uid, outside_gid=gid, proc=prepared.proc)
    limits = prepared.policy.limits
    if limits.scratch_bytes:
        folder = root.scratch_folder(prepared.view)
        root.mount_scratch(folder, size_bytes=limits.scratch_bytes, files=limits.scratch_files)


def finish_supervisor(prepared: Prepared) -> None:
    """Second part, after the worker is forked: the supervisor keeps no authority of its own."""
    rlimits.set_limit("core_bytes", 0, 0)
    if prepared.plan.namespaces:
        privileges.drop_bounding_set()
    if prepared.plan.filtered:
        privileges.drop_capabilities()
        privileges.set_dumpable(False)


def limit_open_files(prepared: Prepared, worker: int) -> None:
    """Third part, once the seccomp listener has come: the last of the worker's limits, from outside.

    The limit on open files is also how many descriptors all processes of the user may have on their way through sockets
    when this one sends another (unix(7), ETOOMANYREFS). Any worker can have hundreds on theirs: with its own small limit
    a new worker could not hand over its listener. What workers can have there stays below what the template and new
    workers may: a worker's limit is below theirs by more than one message carries.
    """
    hard = rlimits.hard_limit("open_files")  # of the template and of new workers
    below = hard if hard < 0 else max(hard - _IN_FLIGHT_MARGIN, _OPEN_FILES_MIN)
    wanted = prepared.policy.limits.open_files
    rlimits.set_limit_of(worker, "open_files", wanted if below < 0 else min(wanted, below))


def enter_group(doors: list[int]) -> None:
    """Put this process into the group that the host made for it. The host looks, and puts it there where this failed."""
    for door in doors:
        with contextlib.suppress(OSError):
            os.write(door, b"0")


@dataclass(frozen=True, slots=True)
class Locked:
    """What a locked-down worker starts with: its channel to the host, and the Enforced report, encoded."""

    channel: socket.socket
    report: bytes


def confine_worker(
    prepared: Prepared, *, channel: int, line: int, stack: int, streams: tuple[int, int], supervisor: int
) -> Locked:
    """Lock this process down; after it only plugin code and its loop run here.

    line:       socket on which the supervisor waits for the seccomp listener.
    supervisor: its process id.
    Before:  this is the only thread, freshly forked by the supervisor.
    After:   descriptors are 0-2 (nothing, two pipes), the channel and the stack pipe; no way back.
    Raises:  KernelRefused, OSError: the process must end then.
    """
    policy, plan = prepared.policy, prepared.plan
    # 1. A session of its own: no controlling terminal, no foreign process group. Its life hangs on the supervisor's.
    os.setsid()
    if not plan.namespaces:
        privileges.die_with_parent(supervisor)
    privileges.set_process_name("fxcell-worker")
    _default_signals()
    # 2. First in line when memory runs out. The host sees to it that this process is in its cgroup before any command comes.
    _set_oom_score(prepared.proc)
    spaces = namespaces.identities(enforced.NAMESPACES, prepared.proc)
    # 3. Descriptors: exactly these, nothing inherited.
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    processes.place_at(
        {0: nothing, 1: streams[0], 2: streams[1], CHANNEL_FD: channel, REPORT_FD: line, STACK_FD: stack}
    )
    processes.close_all_except({0, 1, 2, CHANNEL_FD, REPORT_FD, STACK_FD})
    # Python asks the kernel about a socket when it wraps one, which the filter will refuse.
    to_host, to_supervisor = socket.socket(fileno=CHANNEL_FD), socket.socket(fileno=REPORT_FD)
    # 4. Limits of the process.
    _set_limits(policy.limits, plan, in_memory_cgroup=prepared.in_memory_cgroup)
    if not plan.filtered:
        to_supervisor.close()
        return Locked(to_host, enforced.encoded(plan, enforced.observe(plan, spaces)))
    # 5. Privileges.
    if plan.namespaces:
        root.check_minimal(prepared.view)
        privileges.drop_bounding_set()
        privileges.lock_securebits()
    privileges.set_no_new_privs()
    privileges.drop_capabilities()
    privileges.set_dumpable(False)
    if "writable_code" not in plan.words:
        privileges.refuse_memory_execution_gain()
    # 6. Landlock.
    landlock.restrict_self(_landlock_rules(prepared), landlock.abi(plan.landlock_abi))
    # 7. seccomp, and the listener's way to the supervisor.
    report = enforced.observe(plan, spaces)
    listener = seccomp.install_filter(for_process(prepared.program, os.getpid()))
    enforced.send_listener(to_supervisor, listener, await_answer=True)
    return Locked(to_host, enforced.encoded(plan, report))


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _set_oom_score(proc: int) -> None:
    descriptor = os.open("self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(descriptor, b"1000")
    finally:
        os.close(descriptor)


def _set_limits(limits: Limits, plan: Plan, *, in_memory_cgroup: bool) -> None:
    # With a memory cgroup the data limit is only a backstop: it counts what was reserved, not what is used.
    data = limits.memory_bytes * 4 if in_memory_cgroup else limits.memory_bytes
    for kind, value in (
        ("core_bytes", 0),
        ("data_bytes", data),
        ("file_bytes", max(limits.file_bytes, limits.message_bytes)),
        ("locked_bytes", 0),
        ("queue_bytes", 0),
        ("stack_bytes", limits.stack_bytes),
    ):
        rlimits.set_limit(kind, value, value)
    if not plan.filtered:  # else the supervisor sets it: limit_open_files
        rlimits.set_limit("open_files", limits.open_files, limits.open_files)
    if not in_memory_cgroup and plan.filtered:
        # The only limit that mapped memory files are in. It counts what is reserved, so it must be wide: libraries and
        # threads reserve about 1 GiB that they never use.
        space = 2 * limits.memory_bytes + _RESERVED_BYTES
        rlimits.set_limit("address_bytes", space, space)
    if plan.namespaces:
        # Counted per user namespace since Linux 5.14, so these are the worker's own; one more for its supervisor.
        tasks = limits.processes + limits.threads + 1
        rlimits.set_limit("processes", tasks, tasks)
        rlimits.set_limit("pending_signals", 256, 256)


def _landlock_rules(prepared: Prepared) -> list[tuple[str, int]]:
    view = prepared.view
    rules = [(path, landlock.READ) for path in view.trees]
    rules += [(path, landlock.READ_FILE | landlock.WRITE_FILE) for path in view.devices]
    if prepared.policy.limits.scratch_bytes:
        rules.append((root.scratch_folder(view), landlock.SCRATCH))
    return rules


def prepare(policy: Policy, plan: Plan, view: View, *, in_memory_cgroup: bool) -> Prepared:
    """Compile the filter and open what will be out of reach later."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not plan.filtered:
        return Prepared(policy, plan, view, b"", {}, proc, in_memory_cgroup, {})
    words = plan.words | {MEMORY_IS_COUNTED} if in_memory_cgroup else plan.words
    if not plan.namespaces:
        words |= {TASKS_ARE_NOT_COUNTED}
    return Prepared(
        policy, plan, view, compile_filter(words), errno_answers(words), proc, in_memory_cgroup, asked_rows(words)
    )
