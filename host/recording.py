"""Recording: every command to one worker, every effect with its answer, and how it ended, as one file.

    with recording(worker, "run.fxr"):
        FX.SendCommandToWorkerProcess(process=worker, command=plugin.call()) | run

The effects are judged and performed as ever; `fxcell replay run.fxr` runs the commands again with the recorded answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

import fxcell
from fxcell.host import registry, tapes
from fxcell.host.exchange import UNSENDABLE, told
from fxcell.host.records import MAX_BYTES, MAX_ENTRIES, Record, RecordedCommand, RecordedEffect, write_record
from fxcell.host.redaction import redacted
from fxcell.policies import calls, values
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.effects import Effect, WorkerProcess
from fxcell.policies.errors import EffectDenied, EffectFailed, EncodeError, OutcomeError, RecordError
from fxcell.policies.policy import Policy

if TYPE_CHECKING:
    from fxcell.host.effects.context import Context
    from fxcell.host.plugins import Plugin
    from fxcell.host.sessions import Session

_REFUSED = {"denied": ("effect", "field", "rule", "policy", "suggestion"), "failed": ("effect", "kind", "message")}


class Recorder:
    """A tape that writes down what passes. `record` is what came so far; it holds no values of secret headers.

    path: where the record will be; a crash names it as its reproducer.
    """

    def __init__(self, policy: Policy, plugin: Plugin | None = None, path: str | None = None) -> None:
        name, digest = (plugin.name, plugin.digest) if plugin else ("", "")
        self.record = Record(
            fxcell.__version__, time.time(), policy.name, policy.digest, policy.to_data(), name, digest
        )
        self._path = path
        self._left_bytes, self._left_entries = MAX_BYTES, MAX_ENTRIES
        self._began = 0.0

    @property
    def is_full(self) -> bool:
        """True when more came than a record may hold: nothing is kept any more, and save raises."""
        return self._left_bytes < 0

    def command(self, session: Session, value: Any, go: Callable[[], Any]) -> Any:
        """Run the command and keep it with its outcome, also where that is an error."""
        kept = RecordedCommand(calls.to_portable_bytes(redacted(value)))
        self._take(len(kept.value))
        if self.is_full:
            kept.value = b""
        self.record.commands.append(kept)
        self._began = time.perf_counter()
        try:
            result = go()
            data = values.encode_value(redacted(result))
            kept.kind = "value"
            self._take(len(data))
            kept.data = b"" if self.is_full else data
            return result
        except OutcomeError as outcome:
            facts = outcome.to_dict()
            kept.kind, kept.data = facts["outcome"], msgspec.msgpack.encode(facts)
            if isinstance(outcome, WorkerCrash) and not self.is_full:
                outcome.evidence = dataclasses.replace(outcome.evidence, reproducer=self._path)
            raise
        finally:
            kept.stdout_tail, kept.stderr_tail = session.outputs.tail(1), session.outputs.tail(2)

    def effect(self, session: Session, effect: Effect, context: Context) -> Any:
        """Have the effect performed and keep it with its answer. Raises as the broker."""
        before, started = session.broker.performed, time.perf_counter()
        outcome, answer = "cancelled", b""
        try:
            result = session.broker.perform(effect, context)
            answer = values.encode_value(redacted(result))
            outcome = "done"
            return result
        except (EffectDenied, EffectFailed) as refusal:
            outcome = "denied" if isinstance(refusal, EffectDenied) else "failed"
            answer = msgspec.msgpack.encode({key: told(getattr(refusal, key)) for key in _REFUSED[outcome]})
            raise
        except EncodeError:  # what the session will tell the worker of a result that cannot travel
            outcome = "failed"
            answer = msgspec.msgpack.encode({"effect": effect.effect_name, "kind": "internal", "message": UNSENDABLE})
            raise
        finally:
            asked, ended = values.encode_value(redacted(effect)), time.perf_counter()
            self._take(len(asked) + len(answer))
            if not self.is_full:
                performed = session.broker.performed > before
                entry = RecordedEffect(asked, outcome, answer, performed, started - self._began, ended - started)
                self.record.commands[-1].effects.append(entry)
                self._left_entries -= 1

    def save(self, path: str) -> None:
        """Write the record. Raises RecordError, also where the run was more than a record may hold."""
        if self.is_full:
            raise RecordError(f"the run is more than a record may hold ({MAX_BYTES:,} bytes); nothing was written to {path!r}")
        write_record(path, self.record)

    def _take(self, count: int) -> None:
        self._left_bytes -= count
        if self._left_entries <= 0:
            self._left_bytes = -1


@contextlib.contextmanager
def recording(process: WorkerProcess, path: str | os.PathLike[str], plugin: Plugin | None = None) -> Iterator[Recorder]:
    """Record every command that is sent to a worker inside the block; the file is written at its end, whatever happened.

    path:   a file that does not matter until then; readable by its owner only. Over 256 MiB nothing is written.
    plugin: what the commands are calls of: its name and digest go into the record.
    Raises: RecordError - at the start for a folder that cannot be written, at the end as Recorder.save.
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        text = "it is a folder" if os.path.isdir(path) else f"{folder!r} is no folder that you may write"
        raise RecordError(f"the record cannot be written to {path!r}: {text}")
    recorder = Recorder(registry.session_of(process).policy, plugin, os.path.abspath(path))
    with tapes.attached(process, recorder):
        try:
            yield recorder
        finally:
            recorder.save(path)
