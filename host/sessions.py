"""A session: one worker from start to end, commands one at a time.

    start      cgroup -> sockets -> template.spawn -> greeting.py: listening (supervisor) -> hello (worker), Enforced checked
    command    exchange.py: what goes out, and in which order what may come in
    end        kill or notice -> the supervisor's report -> pidfd ready -> cgroup read and removed -> diagnose

Whatever the worker sends that is not the next thing in its order ends it as a protocol violation.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from fxcell.host import broker as brokers
from fxcell.host import cancelling, ending, telemetry, templates
from fxcell.host.batching import Batch
from fxcell.host.diagnose import HostCause
from fxcell.host.effects.context import Caller, Context
from fxcell.host.exchange import Exchange, Failure, Verdict
from fxcell.host.greeting import NotReady, await_greeting
from fxcell.host.outputs import Outputs
from fxcell.policies import values
from fxcell.policies.calls import Definition
from fxcell.policies.crash import Evidence, Reason, WorkerCrash
from fxcell.policies.effects import Effect, WorkerProcess, is_own
from fxcell.policies.errors import EncodeError, MessageTooLarge, WorkerStopped
from fxcell.policies.policy import Policy
from fxcell.sandbox.area import NoArea
from fxcell.sandbox.plan import Plan
from fxcell.sandbox.probe import Probe

if TYPE_CHECKING:
    from fxcell.host.tapes import Tape

_GONE_PATIENCE_S = 2.0
_numbers = itertools.count(1)


class _InThisThread(threading.local):
    """commands: how many this thread is in the middle of: handlers of effects run in it, and may send some themselves."""

    commands = 0


_in_this_thread = _InThisThread()


class Session:
    """One worker. Safe from many threads: commands wait for each other."""

    def __init__(self, policy: Policy, caller: Caller | None = None) -> None:
        """Start a worker and check what it says it is locked down by.

        caller: the plugin it is for; closed with the worker.

        Raises: IsolationUnavailable; WorkerCrash(start_failed). Nothing is left then.
        """
        telemetry.look()
        self.policy = policy
        self.caller = caller or Caller()
        self.process = WorkerProcess(f"w{next(_numbers)}-{os.getpid()}-{os.urandom(3).hex()}")
        self.started_unix_s = time.time()
        self.started_s = time.monotonic()
        self.commands = 0
        self.layers: tuple[str, ...] = ()
        self.enforced: dict[str, dict[str, Any]] = {}
        self.ended: str | None = None
        self.busy = False
        self.broker = brokers.Broker(policy, self.process.id, rates=self.caller.rates)
        self.outputs = Outputs(policy)
        self.tape: Tape | None = None
        self._turn = threading.Lock()
        self._batch: Batch | None = None
        self._thread = 0  # that is in the middle of a command
        self._command_digest = self._plugin_digest = ""
        self._template = templates.hold(policy)
        # A template has its own, longer time to start (template_process.START_S): what it imports is not this worker's doing.
        deadline = time.monotonic() + policy.limits.start_s
        try:
            self._handles = ending.Handles(policy, self._template, deadline)
        except BaseException:
            templates.release(self._template)
            raise
        self._exchange = Exchange(policy, self._handles, self.broker, self.outputs)
        try:
            self.channel = self._handles.channel
            self._await_greeting(deadline)
        except WorkerCrash as crash:
            self._handles.close(self._template)
            raise WorkerCrash(crash.reason, crash.detail, crash.evidence) from crash
        except BaseException:
            self._handles.close(self._template)
            raise
        if self.broker.observer is not None:
            self.broker.observer.worker_started(self.broker)

    @property
    def plan(self) -> Plan:
        """What the worker was locked down by; `enforced` is what it read back afterwards: layer -> values."""
        return self._template.plan

    @property
    def probe(self) -> Probe:
        """What this machine offers, as found before the plan was made."""
        return self._template.probe

    @property
    def pid(self) -> int:
        """The process id of the worker's supervisor, as the host sees it."""
        return self._handles.pid

    @property
    def lives(self) -> bool:
        """False once the worker has ended, also one that died while no command was running and nobody was told."""
        return not self.ended and not self._handles.ended

    def cpu_s(self) -> float:
        """CPU seconds that the worker has used so far, with everything that it forked."""
        return self._handles.meter.read_s()

    @property
    def state(self) -> str:
        """idle, busy, or ended."""
        return "ended" if self.ended else "busy" if self.busy else "idle"

    def _await_greeting(self, deadline: float) -> None:
        try:
            greeting = await_greeting(self._handles, self._template, self.policy, deadline)
        except NotReady as failed:
            self._die(failed.cause, ready=False, mid_frame=failed.mid_frame)
        self.layers, self.enforced = greeting.layers, greeting.enforced

    # --- commands

    def command(self, value: Any, deadline_s: float | None = None) -> Any:
        """Run a value in the worker and answer its result.

        deadline_s: seconds; more than the policy's wall_s counts as wall_s.
        Raises: PluginError, EffectDenied, EffectFailed, WorkerCrash, EncodeError, MessageTooLarge, WorkerStopped.
        """
        packed = values.pack(value)
        with self._turn:
            self._check_lives()
            if isinstance(value, Effect) and value.effect_name not in self.policy.effects and is_own(type(value)):
                # A worker that was not told of it could not even read it: denied, and recorded, before it is sent.
                self.broker.begin_command()
                return self.broker.perform(value, self._context(time.monotonic() + self.policy.limits.wall_s))
            seconds = self._seconds(deadline_s)
            self.commands += 1
            self._begin_turn()
            deadline = time.monotonic() + seconds
            try:
                act = self._run if self.broker.observer is None else self._run_observed
                with cancelling.command(self.kill):
                    if self.tape is None:
                        return act(packed, deadline, seconds)
                    return self.tape.command(self, value, lambda: act(packed, deadline, seconds))
            finally:
                self._end_turn()

    @property
    def takes_batches(self) -> bool:
        """False where each command is watched or recorded by itself."""
        return self.broker.observer is None and self.tape is None

    def batch(
        self, definition: Definition, rows: Sequence[Sequence[Any]], deadline_s: float | None = None
    ) -> tuple[list[Any], list[Exception]]:
        """Call one function with each row of arguments, one after another, until one call does more than compute.

        rows:       equally many arguments each, at least one row. Before: takes_batches.
        deadline_s: seconds for each call, of which up to a tenth, and up to 10 ms, are added once.
        Answers the results of the first calls, and the outcome of the one after them when it is an error: a crash is that
        call's alone. The calls after these were not begun.
        Raises: EncodeError, MessageTooLarge, WorkerStopped, NoArea - no call was begun.
        """
        seconds = self._seconds(deadline_s)
        batch = Batch(definition, rows, seconds)
        with self._turn:
            self._check_lives()
            self._begin_turn()
            self._batch = batch
            try:
                deadline = time.monotonic() + batch.longest_s + seconds
                answer = self._run(batch.packed, deadline, seconds, calls=len(batch))
                self.commands += len(answer.before) + 1
                if type(answer.last) is Failure:
                    return answer.before, answer.last.exceptions
                return [*answer.before, answer.last], []
            except WorkerCrash as crash:
                self.commands += len(batch.done) + 1
                return batch.done, [crash]
            finally:
                self._end_turn()

    def _begin_turn(self) -> None:
        self.busy, self._thread = True, threading.get_ident()
        _in_this_thread.commands += 1

    def _end_turn(self) -> None:
        _in_this_thread.commands -= 1
        self.busy, self._thread, self._batch = False, 0, None
        if self._handles.stop_requested:
            self._let_go()

    def _seconds(self, deadline_s: float | None) -> float:
        longest_s = self.policy.limits.wall_s
        return longest_s if deadline_s is None else min(deadline_s, longest_s)

    def _check_lives(self) -> None:
        if self.ended:
            raise WorkerStopped(
                f"worker {self.process.id} is gone: {self.ended}. Start a new one: FX.StartWorkerProcess() | run"
            )

    def _run_observed(self, packed: values.Packed, deadline: float, seconds: float) -> Any:
        observer = self.broker.observer
        assert observer is not None
        self._name_command(packed)
        self.broker.command, self.broker.plugin = self._command_digest, self._plugin_digest
        observer.command_started(self.broker)
        outcome: BaseException | None = None
        try:
            return self._run(packed, deadline, seconds)
        except BaseException as error:
            outcome = error
            raise
        finally:
            observer.command_ended(self.broker, outcome)
            outcome = None  # a frame of its own traceback must not keep it alive
            self.broker.command = self.broker.plugin = ""

    def _run(self, packed: values.Packed, deadline: float, seconds: float, *, calls: int = 0) -> Any:
        self._command_digest, self._plugin_digest = "", ""
        try:
            answer = self._exchange.answer(packed, deadline, seconds, self._perform, calls=calls)
        except (MessageTooLarge, EncodeError, NoArea):
            raise  # of the command itself, before the worker heard of it
        except BaseException:
            # Ctrl-C in the caller, or a bug of ours: the worker's state is unknown, it cannot be used again.
            with contextlib.suppress(WorkerCrash):
                self._die(HostCause(Reason.STOPPED, "the caller was interrupted"))
            raise
        if type(answer) is Failure:
            # Without a name here: an exception that its own traceback leads to keeps everything alive that it leads to.
            raise answer.exceptions.pop()
        if type(answer) is Verdict:
            if not calls:
                self._name_command(packed)
            self._die(answer.cause, mid_frame=answer.mid_frame, memory_error=answer.memory_error)
        return answer

    def _perform(self, effect: Effect, deadline: float) -> Any:
        context = self._context(deadline)
        return self.broker.perform(effect, context) if self.tape is None else self.tape.effect(self, effect, context)

    def _context(self, deadline: float) -> Context:
        outputs, cancelled = self.outputs, self._exchange.cancelled
        return Context(self.process.id, self.policy, deadline, cancelled, outputs.line, self.caller, outputs.spend)

    # --- end

    def end_idle(self, why: str, commands: int) -> None:
        """End a worker that works although no command is running, unless one has begun meanwhile."""
        if not self._turn.acquire(blocking=False):
            return  # one has begun, and may take long
        try:
            if not self.ended and self.commands == commands:
                self.ended = f"it was ended ({Reason.CPU_LIMIT.value}: {why})"
                self._handles.close(self._template)
                self._tell_end()
        finally:
            self._turn.release()

    def kill(self) -> None:
        """Have the worker end; what runs a command in it notices that it is gone. stop() waits for the end."""
        self._handles.stop_requested = True
        self._handles.kill()

    def stop(self) -> None:
        """End the worker, whatever it is doing, and wait until nothing of it is left.

        From an effect handler of its own command only the first: that command, which ends then, lets go of it. From one of
        another worker's command it waits for a moment only: two handlers can stop each other's workers.
        """
        if not self.ended:
            self.kill()
        if self._thread == threading.get_ident():
            self._handles.gone_within(_GONE_PATIENCE_S)  # an answer to the effect would let it go on for a moment
        elif self._turn.acquire(timeout=_GONE_PATIENCE_S if _in_this_thread.commands else -1):
            try:
                self._let_go()
            finally:
                self._turn.release()

    def _let_go(self) -> None:
        if not self.ended:
            self.ended = "it was stopped"
            self._handles.close(self._template)
            self._tell_end()

    def _tell_end(self) -> None:
        self.caller.close()
        self._let_go_of_area()
        if self.broker.observer is not None:
            self.broker.observer.worker_ended(self.broker, self.ended or "")

    def _die(
        self, cause: HostCause | None, *, ready: bool = True, mid_frame: bool = False, memory_error: bool = False
    ) -> NoReturn:
        """Collect the evidence, leave nothing behind, raise WorkerCrash."""
        end = self._handles.end(self._template, cause, ready=ready, mid_frame=mid_frame, memory_error=memory_error)
        self.caller.close()
        self._let_go_of_area()
        evidence = Evidence(
            worker=self.process.id,
            signal=end.signal,
            exit_code=end.exit_code,
            syscall=end.facts.denied,
            python_stack=end.stack,
            resources=end.use(time.monotonic() - self.started_s),
            stdout_tail=self.outputs.tail(1) + end.stdout_tail,
            stderr_tail=self.outputs.tail(2) + end.stderr_tail,
            last_effect=self.broker.last_effect,
            open_effect=self._exchange.open_effect,
            effects_performed=self.broker.performed,
            command=self._command_digest,
            plugin=self._plugin_digest,
            policy=self.policy.digest[:12],
            layers=self.layers,
        )
        crash = WorkerCrash(end.reason, end.detail, evidence)
        self.ended = f"it crashed ({crash})"
        if self.broker.observer is not None:
            self.broker.observer.worker_crashed(self.broker, crash)
        del crash  # raised by another name: see _run
        raise WorkerCrash(end.reason, end.detail, evidence)

    def _let_go_of_area(self) -> None:
        """Read what is in it of a batch: that is certain only now, when the worker is gone. Then close it."""
        area, self._exchange.area = self._exchange.area, None
        try:
            if self._batch is not None:
                self._name_command(self._batch.settle(area))
        finally:
            if area is not None:
                area.close()

    def _name_command(self, packed: values.Packed) -> None:
        self._command_digest = hashlib.sha256(packed.body).hexdigest()[:12]
        self._plugin_digest = ",".join(digest[:12] for digest in packed.definitions)
