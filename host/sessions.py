"""A session: one worker from start to end, commands one at a time.

    start      cgroup -> sockets -> template.spawn -> listening (supervisor) -> hello (worker), Enforced checked
    command    vocabulary (before the first) -> define* -> run -> { output | effect -> broker -> effectResult }* -> result | failure
    end        kill or notice -> the supervisor's report -> pidfd ready -> cgroup read and removed -> diagnose

Whatever the worker sends that is not the next thing in this order ends it as a protocol violation.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import capnp
import msgspec

from fxcell.host import broker as brokers
from fxcell.host import cancelling, ending, telemetry, templates, watching
from fxcell.host.diagnose import HostCause
from fxcell.host.effects.context import Caller, Context
from fxcell.host.outputs import Outputs
from fxcell.policies import values, vocabulary
from fxcell.policies.calls import Definition
from fxcell.policies.crash import Evidence, Reason, WorkerCrash
from fxcell.policies.effects import Effect, WorkerProcess
from fxcell.policies.errors import (
    DescriptorsInFlight,
    EffectDenied,
    EffectFailed,
    EncodeError,
    MessageTooLarge,
    PluginError,
    WorkerStopped,
    printable,
)
from fxcell.policies.policy import Policy
from fxcell.policies.running import holds_work
from fxcell.sandbox import enforced, wire
from fxcell.sandbox.plan import Plan
from fxcell.sandbox.probe import Probe
from fxcell.sandbox.worker import PROTOCOL

if TYPE_CHECKING:
    from fxcell.host.tapes import Tape

_log = logging.getLogger("fxcell.sessions")
_numbers = itertools.count(1)
_CODE_PIECE_BYTES = wire.FRAME_BYTES_MAX // 2


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
        self.broker = brokers.Broker(policy, self.process.id)
        self.outputs = Outputs(policy)
        self.tape: Tape | None = None
        self._turn = threading.Lock()
        self._known: dict[str, Definition] = {}
        self._effects_seen = 0
        self._open_effect: str | None = None
        self._last_failure: EffectFailed | None = None
        self._command_digest = self._plugin_digest = ""
        # With the first command, not with the start: a worker that is kept ready serves many policies.
        self._vocabulary = vocabulary.described(policy)
        self._template = templates.hold(policy)
        # A template has its own, longer time to start (templates.START_S): what it imports is not this worker's doing.
        deadline = time.monotonic() + policy.limits.start_s
        try:
            self._handles = ending.Handles(policy, self._template, deadline)
        except BaseException:
            templates.release(self._template)
            raise
        try:
            self.channel = self._handles.channel
            self._greet(deadline)
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

    # --- start

    def _greet(self, deadline: float) -> None:
        try:
            listening = self._handles.report.receive(deadline)
            if listening.which() != "listening":
                self._handles.note_ended(listening)
                self._die(None, ready=False)
            self.channel.end_with(self._handles.report)
            hello = self.channel.receive(deadline)
            if hello.which() != "hello" or hello.hello.protocol != PROTOCOL:
                self._die(HostCause(Reason.PROTOCOL_VIOLATION, f"the worker greeted with {hello.which()}"), ready=False)
        except wire.ChannelClosed as closed:
            self._die(None, ready=False, mid_frame=closed.mid_frame)
        except (wire.WireError, capnp.KjException) as error:
            self._die(HostCause(Reason.PROTOCOL_VIOLATION, str(error)), ready=False)
        except wire.DeadlinePassed:
            self._die(HostCause(Reason.DEADLINE, f"not ready within {self.policy.limits.start_s} s"), ready=False)
        self.layers = enforced.check(
            self._template.plan, self.policy.limits, hello.hello.enforced, outside=self._template.outside,
            in_memory_cgroup=self._handles.group is not None,
        )  # fmt: skip
        self.enforced = enforced.decoded(hello.hello.enforced)
        self._handles.enter_cgroup()

    # --- commands

    def command(self, value: Any, deadline_s: float | None = None) -> Any:
        """Run a value in the worker and answer its result.

        deadline_s: seconds; more than the policy's wall_s counts as wall_s.
        Raises: PluginError, EffectDenied, EffectFailed, WorkerCrash, EncodeError, MessageTooLarge, WorkerStopped,
        DescriptorsInFlight.
        """
        packed = values.pack(value)
        with self._turn:
            if self.ended:
                raise WorkerStopped(
                    f"worker {self.process.id} is gone: {self.ended}. Start a new one: FX.StartWorkerProcess() | run"
                )
            if isinstance(value, Effect) and value.effect_name not in self.policy.effects and vocabulary.is_own(type(value)):
                # A worker that was not told of it could not even read it: denied, and recorded, before it is sent.
                deadline = time.monotonic() + self.policy.limits.wall_s
                context = Context(self.process.id, self.policy, deadline, self._handles.gone_within, self.outputs.line)
                return self.broker.perform(value, context)
            limits = self.policy.limits
            seconds = limits.wall_s if deadline_s is None else min(deadline_s, limits.wall_s)
            self.commands += 1
            self.busy = True
            deadline = time.monotonic() + seconds
            try:
                act = self._run if self.broker.observer is None else self._run_observed
                with cancelling.command(self._cancel):
                    if self.tape is None:
                        return act(packed, deadline, seconds)
                    return self.tape.command(self, value, lambda: act(packed, deadline, seconds))
            finally:
                self.busy = False

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

    def _run(self, packed: values.Packed, deadline: float, seconds: float) -> Any:
        answer = self._answer(packed, deadline, seconds)
        if type(answer) is _Failure:
            # Without a name here: an exception that its own traceback leads to keeps everything alive that it leads to.
            raise answer.exceptions.pop()
        if type(answer) is _Verdict:
            self._name_command(packed)
            self._die(answer.cause, mid_frame=answer.mid_frame, memory_error=answer.memory_error)
        return answer

    def _answer(self, packed: values.Packed, deadline: float, seconds: float) -> Any:
        """The command's result, or how it failed, as a value.

        What is raised to the caller is raised elsewhere: no frame that held a message or a refused value goes with it.
        """
        # Not to be guessed: nothing that an earlier command left behind can answer this one before it is sent.
        number = int.from_bytes(os.urandom(8), "little") >> 1
        self.broker.begin_command()
        self._handles.begin_command()
        self._last_failure = None
        self._command_digest, self._plugin_digest = "", ""
        try:
            if self._vocabulary is not None:
                self.channel.send(wire.Message.new_message(vocabulary=self._vocabulary), deadline=deadline)
                self._vocabulary = None
            for definition in packed.definitions.values():
                self._define(definition, deadline)
            self.channel.send_value("run", number, packed, deadline)
            message = self._serve_until_answer(number, deadline)
            self.outputs.end_command()
            if message.which() == "result":
                result = self.channel.value_of(message.result, allow_calls=False)
                if holds_work(result):
                    # Workers run such results themselves, as `run` does. Here the host would, with its own authority.
                    raise wire.WireError("a result is an effect, or a list that holds one, which a worker performs itself")
                if time.monotonic() >= deadline:  # what is slow to decode must not be a way around it
                    raise wire.DeadlinePassed
                return result
            return _Failure([self._failure(message.failure)])
        except (wire.ChannelClosed, BrokenPipeError, ConnectionResetError) as closed:
            return _Verdict(None, mid_frame=getattr(closed, "mid_frame", False))
        except (wire.WireError, capnp.KjException, UnicodeError) as error:
            # Fields are read when they are asked for: a bad pointer in one shows only then.
            return _Verdict(HostCause(Reason.PROTOCOL_VIOLATION, f"{error!s:.300}"))
        except wire.DeadlinePassed:
            stopped = "; the worker is stopped (SIGSTOP)" if watching.is_stopped(self._handles.pid) else ""
            return _Verdict(HostCause(Reason.DEADLINE, f"no answer within {seconds:g} s{stopped}"))
        except _Ended as ended:
            return ended.verdict
        except (MessageTooLarge, EncodeError, DescriptorsInFlight):
            raise  # of the command itself, before the worker heard of it
        except BaseException:
            # Ctrl-C in the caller, or a bug of ours: the worker's state is unknown, it cannot be used again.
            with contextlib.suppress(WorkerCrash):
                self._die(HostCause(Reason.STOPPED, "the caller was interrupted"))
            raise

    def _define(self, definition: Definition, deadline: float) -> None:
        if definition.digest in self._known:
            return
        if not definition.code:
            raise EncodeError(f"the code of {definition.name} is not in this process, so the call cannot be sent")
        for start in range(0, len(definition.code), _CODE_PIECE_BYTES):
            message = wire.Message.new_message()
            define = message.init("define")
            define.digest, define.name = definition.digest, definition.name
            define.code = definition.code[start : start + _CODE_PIECE_BYTES]
            self.channel.send(message, deadline=deadline)
        self._known[definition.digest] = definition

    def _serve_until_answer(self, number: int, deadline: float) -> Any:
        clock = watching.CpuWatch(self._handles.meter, self.policy.limits)
        while True:
            # Asked before each message: a flood of them must not put the deadline off.
            now = time.monotonic()
            if now >= deadline:
                raise wire.DeadlinePassed
            if now >= clock.next_look and (used := clock.look()) is not None:
                raise _Ended(_Verdict(HostCause(Reason.CPU_LIMIT, used)))
            try:
                message = self.channel.receive(min(deadline, clock.next_look))
            except wire.DeadlinePassed:
                continue
            kind = message.which()
            if kind in ("result", "failure"):
                if message.id != number:
                    raise wire.WireError(f"an answer came that is not for command {self.commands}, which was running")
                return message
            if kind == "effect":
                self._effect(message, deadline)
            elif kind == "output":
                if not message.output.data:  # it would count against no limit, and be work all the same
                    raise wire.WireError("the worker sent an output message without output")
                if not self.outputs.add(message.output.stream, message.output.data):
                    what = f"the worker wrote more than {self.policy.limits.output_bytes} bytes of output"
                    raise _Ended(_Verdict(HostCause(Reason.OUTPUT_LIMIT, what)))
            else:
                raise wire.WireError(f"the worker sent {kind}, which only hosts send")

    def _effect(self, message: Any, deadline: float) -> None:
        self._effects_seen += 1
        number = message.id
        if number != self._effects_seen:
            raise wire.WireError(f"effect {number} came where effect {self._effects_seen} was next")
        effect = self.channel.value_of(message.effect, allow_calls=False)
        if not isinstance(effect, Effect):
            raise wire.WireError(f"an effect message holds a {type(effect).__name__}")
        context = Context(
            self.process.id, self.policy, deadline, self._handles.gone_within, self.outputs.line, self.caller
        )
        self._open_effect = (
            effect.effect_name
        )  # until its answer is on the way: a worker that dies before may ask again
        try:
            tape = self.tape
            result = self.broker.perform(effect, context) if tape is None else tape.effect(self, effect, context)
            packed = values.pack(result)
            self.channel.send_value("effectResult", number, packed, deadline)
        except (EffectDenied, EffectFailed) as refusal:
            self._refuse_effect(number, refusal, deadline)
        except MessageTooLarge as error:
            self._refuse_effect(number, EffectFailed(effect.effect_name, "too_large", str(error)), deadline)
        except EncodeError:
            _log.exception("the answer to FX.%s of worker %s cannot be sent", effect.effect_name, self.process.id)
            text = "the host's handler answered what cannot be sent; the host's log says why"
            self._refuse_effect(number, EffectFailed(effect.effect_name, "internal", text), deadline)
        except DescriptorsInFlight as error:
            self._refuse_effect(number, EffectFailed(effect.effect_name, "in_flight", str(error)), deadline)
        self._open_effect = None

    def _refuse_effect(self, number: int, refusal: EffectDenied | EffectFailed, deadline: float) -> None:
        message = wire.Message.new_message(id=number)
        failure = message.init("failure")
        failure.kind = "denied" if isinstance(refusal, EffectDenied) else "failed"
        if isinstance(refusal, EffectFailed):
            self._last_failure = refusal
        # It is kept, and the frames of its traceback hold the effect, of whatever size.
        refusal.__traceback__ = refusal.__cause__ = refusal.__context__ = None
        details = {key: value for key, value in vars(refusal).items() if isinstance(value, str | None)}
        failure.details = msgspec.msgpack.encode(details)
        self.channel.send(message, deadline=deadline)

    def _failure(self, failure: Any) -> Exception:
        """The outcome that a worker reports, as the exception that the caller gets."""
        kind, type_name = str(failure.kind), str(failure.typeName)
        if kind == "memory":
            raise _Ended(_Verdict(None, memory_error=True))
        # What was denied or failed is told from our own record: the worker could say anything.
        if kind == "denied" and self.broker.last_denial is not None:
            return self.broker.last_denial
        if kind == "failed" and self._last_failure is not None:
            return self._last_failure
        parts = (type_name[:200], str(failure.message)[:4100], str(failure.traceback)[:16100])
        return PluginError(*map(printable, parts))

    # --- end

    def end_idle(self, why: str, commands: int) -> None:
        """End a worker that works although no command is running, unless one has begun meanwhile."""
        with self._turn:
            if not self.ended and self.commands == commands:
                self.ended = f"it was ended ({Reason.CPU_LIMIT.value}: {why})"
                self._handles.close(self._template)
                self._tell_end()

    def _cancel(self) -> None:
        # What runs the command in another thread notices that its worker is gone.
        self._handles.stop_requested = True
        self._handles.kill()

    def stop(self) -> None:
        """End the worker, whatever it is doing, and wait until nothing of it is left."""
        if not self.ended:
            self._cancel()
        with self._turn:
            if not self.ended:
                self.ended = "it was stopped"
                self._handles.close(self._template)
                self._tell_end()

    def _tell_end(self) -> None:
        self.caller.close()
        if self.broker.observer is not None:
            self.broker.observer.worker_ended(self.broker, self.ended or "")

    def _die(
        self, cause: HostCause | None, *, ready: bool = True, mid_frame: bool = False, memory_error: bool = False
    ) -> NoReturn:
        """Collect the evidence, leave nothing behind, raise WorkerCrash."""
        end = self._handles.end(self._template, cause, ready=ready, mid_frame=mid_frame, memory_error=memory_error)
        self.caller.close()
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
            open_effect=self._open_effect,
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

    def _name_command(self, packed: values.Packed) -> None:
        self._command_digest = hashlib.sha256(packed.body).hexdigest()[:12]
        self._plugin_digest = ",".join(digest[:12] for digest in packed.definitions)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a command ended its worker, as far as it was seen from the channel."""

    cause: HostCause | None
    mid_frame: bool = False
    memory_error: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    """An outcome that its worker survives, to be raised once: the exception is taken out then."""

    exceptions: list[Exception]


class _Ended(Exception):
    """The host decided to end the worker: not an error of anybody's code."""

    def __init__(self, verdict: _Verdict) -> None:
        super().__init__()
        self.verdict = verdict
