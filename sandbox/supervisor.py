"""The supervisor: process 1 of a worker's pid namespace. It watches one worker and tells the host how it ended.

    host <── report socket (listening, ended / kill) ──> supervisor <── seccomp listener, stdout, stderr, stack pipes ── worker

It holds no capability and no file but these descriptors, and never reads anything from the worker that it would have to
understand: pipe bytes are kept as they are, system calls come as registers from the kernel. When it ends, the kernel ends
everything in its pid namespace.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import select
import signal
import socket
import time
from collections import deque
from typing import NoReturn

from fxcell.sandbox import apply, enforced, wire, worker
from fxcell.sandbox.kernel import processes, seccomp
from fxcell.sandbox.syscalls import STACK_FD
from fxcell.sandbox.thread_count import ThreadCount

STACK_SIGNAL = signal.SIGUSR2
"""On this signal the worker's faulthandler writes all Python stacks, even while C code holds the interpreter."""

_TAIL_BYTES, _STACK_BYTES = 8 * 1024, 32 * 1024
_STACK_BYTES_MAX = 1024 * 1024
"""What a worker may write into the pipe for its stacks: faulthandler needs some 100 KiB for the deepest ones."""
_STACK_PATIENCE_S = 0.2
_READ_BYTES = 64 * 1024
_NEVER_LISTENS = -1
_REAP_MS = 500
_ASK_AGAIN_MS = 10


def start(prepared: apply.Prepared, channel: int, report: int, doors: list[int], *, spin: bool) -> NoReturn:
    """Run as supervisor of one worker, in a process just forked from the template.

    doors: of the group that the worker will be in; the supervisor stays outside.
    """
    try:
        processes.close_all_except({0, 1, 2, channel, report, prepared.proc, *doors})
        apply.confine_supervisor(prepared)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]  # stdout, stderr, stack
        here, there = socket.socketpair()
        supervisor = os.getpid()
        worker_pid = os.fork()
        if worker_pid == 0:
            writers = [writer for _, writer in pipes]
            _become_worker(
                prepared, channel, there.fileno(), writers, doors, supervisor=supervisor, spin=spin
            )
        there.close()
        readers = [reader for reader, _ in pipes]
        processes.close_all_except({0, 1, 2, report, here.fileno(), *readers})
        apply.finish_supervisor(prepared)
        line = wire.Channel(socket.socket(fileno=report), max_value_bytes=wire.FRAME_BYTES_MAX)
        listener = enforced.receive_listener(here) if prepared.plan.filtered else None
        if listener is not None:
            apply.limit_open_files(prepared, worker_pid)
            here.sendall(b"S")
        here.close()
        watch = _Watch(prepared, line, worker_pid, _NEVER_LISTENS if listener is None else listener, readers)
        if listener is not None or not prepared.plan.filtered:
            line.send(wire.Message.new_message(listening=None))
        watch.until_the_end()
    except BaseException:  # noqa: BLE001 - nothing may return into the template's loop
        _write_last_words()
    os._exit(1)


def _become_worker(
    prepared: apply.Prepared, channel: int, line: int, writers: list[int], doors: list[int], *, supervisor: int, spin: bool
) -> NoReturn:
    try:
        apply.enter_group(doors)
        stdout, stderr, stack = writers
        locked = apply.confine_worker(
            prepared, channel=channel, line=line, stack=stack, streams=(stdout, stderr), supervisor=supervisor
        )
        faulthandler.enable(STACK_FD, all_threads=True)
        faulthandler.register(STACK_SIGNAL, STACK_FD, all_threads=True)
        worker.serve(locked, prepared.policy, spin=spin)
    except BaseException:  # noqa: BLE001 - the reason goes to stderr, whose tail the supervisor keeps
        _write_last_words()
        os._exit(worker.SETUP_FAILED)
    os._exit(0)


def _write_last_words() -> None:
    import traceback

    with contextlib.suppress(OSError):
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace")[-4000:])


class _Tail:
    """The last bytes that came through a pipe, and how many came in all."""

    def __init__(self, keep_bytes: int) -> None:
        self.keep_bytes = keep_bytes
        self.total_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._kept = 0

    def add(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self._chunks.append(data[-self.keep_bytes :])
        self._kept += len(self._chunks[-1])
        while self._kept - len(self._chunks[0]) >= self.keep_bytes:
            self._kept -= len(self._chunks.popleft())

    def bytes(self) -> bytes:
        return b"".join(self._chunks)[-self.keep_bytes :]


class _Watch:
    def __init__(
        self, prepared: apply.Prepared, line: wire.Channel, worker_pid: int, listener: int, readers: list[int]
    ) -> None:
        self.answers = prepared.answers
        self.asked = prepared.asked
        limits = prepared.policy.limits
        self.threads = ThreadCount(worker_pid, limits.processes + limits.threads)
        self.waiting: list[seccomp.Notification] = []  # for room for a thread
        self.reap_every_ms = _REAP_MS if limits.processes > 1 else None
        self.output_bytes = limits.output_bytes
        self.namespaces = prepared.plan.namespaces
        self.line = line
        self.worker_pid = worker_pid
        self.pidfd = os.pidfd_open(worker_pid)
        self.listener = listener
        self.stdout, self.stderr, self.stack = readers
        self.tails = {self.stdout: _Tail(_TAIL_BYTES), self.stderr: _Tail(_TAIL_BYTES), self.stack: _Tail(_STACK_BYTES)}
        self.cause = ""
        self.ended = False
        self.denied: seccomp.Notification | None = None
        self.poller = select.poll()
        for descriptor in (line.fileno(), self.pidfd, *readers):
            os.set_blocking(descriptor, descriptor not in readers)
            self.poller.register(descriptor, select.POLLIN)
        if listener >= 0:
            self.poller.register(listener, select.POLLIN)

    def until_the_end(self) -> NoReturn:
        while True:
            patience_ms = _ASK_AGAIN_MS if self.waiting else self.reap_every_ms
            ready = {descriptor for descriptor, _ in self.poller.poll(patience_ms)}
            self.reap_orphans()
            waiting, self.waiting = self.waiting, []
            for call in waiting:
                self.let_through_or_not(call)
            for descriptor in ready & self.tails.keys():
                self.read_pipe(descriptor)
            if self.pidfd in ready:
                self.finish()
            if self.line.fileno() in ready:
                self.obey_host()
            if self.listener in ready:
                self.judge()

    def reap_orphans(self) -> None:
        """Take note of the end of what the worker forked and left: a process that nobody waited for counts as one."""
        if self.reap_every_ms is None:
            return
        with contextlib.suppress(ChildProcessError):
            # The worker itself stays: its end is read with what it used.
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != self.worker_pid:
                os.waitpid(ended.si_pid, 0)

    def read_pipe(self, descriptor: int) -> bool:
        """Take what is there; False when nothing was."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            with contextlib.suppress(KeyError):  # at the end it is read once more
                self.poller.unregister(descriptor)
            return False
        self.tails[descriptor].add(data)
        written = self.tails[self.stdout].total_bytes + self.tails[self.stderr].total_bytes
        if written > self.output_bytes:
            self.kill("output_limit")
        elif self.tails[self.stack].total_bytes > _STACK_BYTES_MAX:
            self.kill("stack_limit")
        return True

    def obey_host(self) -> None:
        try:
            message = self.line.receive()
        except wire.WireError:
            # The host is gone: nobody is left to tell.
            os.kill(self.worker_pid, signal.SIGKILL)
            os._exit(0)
        if message.which() == "kill":
            self.cause = self.cause or "host"  # first: a plugin may answer the signal for its stack with a flood
            if message.kill.withStack:
                os.kill(self.worker_pid, STACK_SIGNAL)
                self.wait_for_stack()
            self.kill("host")

    def judge(self) -> None:
        """Answer one system call that the filter left to us: with an errno, or with the end of the worker."""
        try:
            call = seccomp.receive(self.listener)
            if not self.cause and any(row.fits(call.arguments) for row in self.asked.get(call.number, ())):
                self.let_through_or_not(call)
                return
            number = self.answers.get(call.number)
            if number is not None or self.cause:
                seccomp.refuse(self.listener, call, number or 1)
                return
        except OSError:  # the caller was killed meanwhile, or a signal interrupted its call, which will come again
            return
        self.denied = call
        self.cause = "denied_syscall"
        # The thread waits inside the call; the signal interrupts the wait and runs faulthandler on that thread's stack.
        if processes.signal_thread(self.worker_pid, call.thread_id, STACK_SIGNAL):
            self.wait_for_stack()
        self.kill("denied_syscall")

    def let_through_or_not(self, call: seccomp.Notification) -> None:
        """Answer clone() for a new thread as the kernel does where it counts: EAGAIN when the limits have no room."""
        room = self.threads.room_for(call.thread_id)
        with contextlib.suppress(OSError):  # the caller was killed meanwhile
            if room is None:
                self.waiting.append(call)
            elif room:
                seccomp.let_through(self.listener, call)
            else:
                seccomp.refuse(self.listener, call, errno.EAGAIN)

    def wait_for_stack(self) -> None:
        end = time.monotonic() + _STACK_PATIENCE_S
        poller = select.poll()
        poller.register(self.stack, select.POLLIN)
        patience_ms = _STACK_PATIENCE_S * 1000
        while patience_ms > 0 and poller.poll(patience_ms) and self.read_pipe(self.stack):
            # faulthandler writes piece by piece: it is done when nothing more comes for a moment.
            patience_ms = min(10.0, (end - time.monotonic()) * 1000)

    def kill(self, cause: str) -> None:
        if self.ended:
            return  # what is found in the pipes of a dead worker did not kill it
        self.cause = self.cause or cause
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def finish(self) -> NoReturn:
        """The worker has ended: end its descendants, take the rest from the pipes, tell the host."""
        self.ended = True
        _, status, use = os.wait4(self.worker_pid, 0)
        self.end_descendants()  # first: one that lives could keep a pipe full
        for descriptor in self.tails:
            while self.read_pipe(descriptor):
                pass
        message = wire.Message.new_message()
        ended = message.init("ended")
        ended.status = status
        ended.cause = self.cause
        ended.use.userS, ended.use.systemS, ended.use.peakBytes = use.ru_utime, use.ru_stime, use.ru_maxrss * 1024
        ended.stack = self.tails[self.stack].bytes().decode("utf-8", "replace")
        ended.stdoutTail = self.tails[self.stdout].bytes()
        ended.stderrTail = self.tails[self.stderr].bytes()
        if self.denied is not None:
            ended.deniedNumber = self.denied.number
            ended.deniedArchitecture = self.denied.architecture
            ended.deniedArguments = list(self.denied.arguments)
        with contextlib.suppress(OSError):
            self.line.send(message)
        os._exit(0)

    def end_descendants(self) -> None:
        while True:
            if self.namespaces:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)  # everything in this pid namespace but this process
            else:
                # Orphans come to us (PR_SET_CHILD_SUBREAPER), so repeating this reaches descendants of any depth.
                for child in processes.children_of(os.getpid()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return
