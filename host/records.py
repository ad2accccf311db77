"""Records of runs: plain values, and the one file format that holds them. Nothing is run here, and nothing is unpickled.

write_record(path, record)        record -> packed Cap'n Proto -> length and SHA-256 before it -> path, at once
read_record(path) -> Record       every byte may be an enemy's: caps first, then the sum, then limits of Cap'n Proto
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import capnp
import msgspec

from fxcell.policies import array_keys, calls, decoded_size, values
from fxcell.policies.effects import Effect
from fxcell.policies.errors import DecodeError, PolicyError, RecordError
from fxcell.policies.policy import Policy

MAX_BYTES = 256 * 1024 * 1024
"""Cap of a record, packed and unpacked."""

MAX_ENTRIES = 1_000_000
"""Cap of the commands of a record, and of the effects of all of them."""

_TABLE_BYTES = 16 * 1024 * 1024
"""Cap of what a policy, a refusal or an ending takes in memory: texts of a few thousand characters."""

_MAGIC = b"FXCELLR1"
_HEADER = struct.Struct("<8sQ32s")
_TRAVERSAL_WORDS = MAX_BYTES // 8 * 2
_NESTING_MAX = 16
_OUTCOMES = ("done", "denied", "failed", "cancelled")

capnp.remove_import_hook()
_schema: Any = capnp.load(os.path.join(os.path.dirname(os.path.realpath(__file__)), "record.capnp"))


@dataclass(slots=True)
class RecordedEffect:
    """One effect with its answer.

    asked:     encoded, secrets of headers redacted.
    outcome:   done, denied, failed or cancelled.
    answer:    done: the encoded result; denied and failed: the refusal's fields, as a table.
    performed: it was handed to a handler, so a denial is not the rules' alone.
    started_s: seconds after its command began.     seconds: from the question to the answer.
    """

    asked: bytes
    outcome: str
    answer: bytes
    performed: bool
    started_s: float
    seconds: float

    def effect(self) -> Effect:
        """What was asked for. Raises RecordError for an effect that this process does not know."""
        value = _decoded(self.asked, "an effect")
        if not isinstance(value, Effect):
            raise RecordError(f"the record holds a {type(value).__name__} where an effect must be")
        return value

    def result(self) -> Any:
        """The result of an effect that was done."""
        return _decoded(self.answer, "a result")

    def refusal(self) -> dict[str, Any]:
        """The fields of EffectDenied or EffectFailed: texts, and None for a denial of the whole effect."""
        told = _table(self.answer, "a refusal")
        if not all(isinstance(value, str | None) for value in told.values()):
            raise RecordError("the record holds a refusal of other things than texts")
        return told


@dataclass(slots=True)
class RecordedCommand:
    """One command: value as FX.from_bytes reads it, effects in order, how it ended (kind and data as in record.capnp)."""

    value: bytes
    effects: list[RecordedEffect] = field(default_factory=list)
    kind: str = "interrupted"
    data: bytes = b"\x80"
    stdout_tail: str = ""
    stderr_tail: str = ""

    def outcome(self) -> Any:
        """The value that it answered, or a table that says how else it ended."""
        return _decoded(self.data, "an outcome") if self.kind == "value" else _table(self.data, "an outcome")


@dataclass(slots=True)
class Record:
    """One recorded worker. policy: as Policy.to_data gives it; digests are SHA-256 in hex."""

    fxcell: str
    started_unix_s: float
    policy_name: str
    policy_digest: str
    policy: dict[str, Any]
    plugin_name: str = ""
    plugin_digest: str = ""
    commands: list[RecordedCommand] = field(default_factory=list)

    def recorded_policy(self) -> Policy:
        """The policy of the run. Raises RecordError where this version cannot read it."""
        try:
            return Policy.from_data(self.policy)
        except (PolicyError, TypeError) as error:
            raise RecordError(f"the record's policy cannot be used here: {error}") from error


def write_record(path: str, record: Record) -> None:
    """Write a record, for its owner's eyes only; the path has the old content or the new, never a part.

    Raises: RecordError - over MAX_BYTES, or the system refuses the path.
    """
    body = _message(record).to_bytes_packed()
    size = sum(len(command.value) + sum(len(e.asked) + len(e.answer) for e in command.effects) for command in record.commands)
    if max(len(body), size) > MAX_BYTES:
        raise RecordError(f"the record would be over {MAX_BYTES:,} bytes; nothing was written to {path!r}")
    temporary = f"{path}.{os.urandom(8).hex()}.part"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_HEADER.pack(_MAGIC, len(body), hashlib.sha256(body).digest()))
                file.write(body)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RecordError(f"the record cannot be written to {path!r}: {error}; give a path in a folder you may write") from error


def read_record(path: str) -> Record:
    """Read a record whole. Raises RecordError: not there, not a record, damaged, over a cap, of another version."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            header = file.read(_HEADER.size)
            body = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RecordError(f"the record {path!r} cannot be read: {error}") from error
    if len(header) < _HEADER.size or not header.startswith(_MAGIC[:-1]):
        raise RecordError(f"{path!r} is not a record of fxcell; `fxcell run --record FILE` writes one")
    magic, length, digest = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise RecordError(f"{path!r} is a record of another version: {magic!r}; this one reads {_MAGIC!r}")
    if len(body) > MAX_BYTES:
        raise RecordError(f"{path!r} is over {MAX_BYTES:,} bytes")
    if len(body) != length or hashlib.sha256(body).digest() != digest:
        raise RecordError(f"{path!r} is damaged: its bytes are not those that were written")
    return _guarded(path, lambda: _read(_schema.Record.from_bytes_packed(body, _TRAVERSAL_WORDS, _NESTING_MAX)))


def _guarded(path: str, read: Callable[[], Record]) -> Record:
    # A forged file has a right sum: fields are read when they are asked for, and each may be malformed.
    try:
        return read()
    except RecordError:
        raise
    except (capnp.KjException, UnicodeError, ValueError, msgspec.MsgspecError) as error:
        text = str(error).partition("stack: ")[0].strip()
        raise RecordError(f"{path!r} is not a record: {text:.200}") from error


def _message(record: Record) -> Any:
    message = _schema.Record.new_message(
        fxcell=record.fxcell, startedUnixS=record.started_unix_s, policyName=_text(record.policy_name),
        policyDigest=record.policy_digest, policy=msgspec.msgpack.encode(record.policy),
        pluginName=_text(record.plugin_name), pluginDigest=record.plugin_digest,
    )  # fmt: skip
    for place, command in zip(message.init("commands", len(record.commands)), record.commands, strict=True):
        place.value, place.outcome.kind, place.outcome.data = command.value, command.kind, command.data
        place.stdoutTail, place.stderrTail = _text(command.stdout_tail), _text(command.stderr_tail)
        for slot, effect in zip(place.init("effects", len(command.effects)), command.effects, strict=True):
            slot.asked, slot.outcome, slot.answer = effect.asked, effect.outcome, effect.answer
            slot.performed, slot.startedS, slot.seconds = effect.performed, effect.started_s, effect.seconds
    return message


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def _read(message: Any) -> Record:
    commands, left = [], MAX_ENTRIES
    for command in _capped(message.commands, MAX_ENTRIES):
        commands.append(_command(command, left))
        left -= len(commands[-1].effects)
    return Record(
        str(message.fxcell), message.startedUnixS, str(message.policyName), str(message.policyDigest),
        _table(message.policy, "a policy"), str(message.pluginName), str(message.pluginDigest),
        commands,
    )  # fmt: skip


def _command(message: Any, most_effects: int) -> RecordedCommand:
    effects = [
        RecordedEffect(
            effect.asked, _one_of(str(effect.outcome)), effect.answer, effect.performed, effect.startedS, effect.seconds
        )
        for effect in _capped(message.effects, most_effects)
    ]
    outcome = message.outcome
    tails = str(message.stdoutTail), str(message.stderrTail)
    return RecordedCommand(message.value, effects, str(outcome.kind), outcome.data, *tails)


def _capped(items: Any, most: int) -> Any:
    # A list of empty structs takes no bytes of the file, however long it says it is; and many commands may share one list.
    if len(items) > most:
        raise RecordError(f"the record holds a list of {len(items):,} entries, over the cap of {most:,}")
    return items


def _one_of(outcome: str) -> str:
    if outcome not in _OUTCOMES:
        raise RecordError(f"the record holds an effect with the outcome {outcome!r:.40}")
    return outcome


def _decoded(data: bytes, what: str) -> Any:
    try:
        return values.decode_value(data, allow_calls=False)
    except DecodeError as error:
        raise RecordError(f"the record holds {what} that cannot be read here: {error}") from error


def decoded_command(data: bytes) -> Any:
    """The value of a command; code in it stays bytes. Raises RecordError."""
    try:
        return calls.from_portable_bytes(data)
    except DecodeError as error:
        raise RecordError(f"the record holds a command that cannot be read here: {error}") from error


def _table(data: bytes, what: str) -> dict[str, Any]:
    try:
        decoded_size.check(data, _TABLE_BYTES)
        array_keys.check(data)
        return msgspec.msgpack.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, DecodeError) as error:
        raise RecordError(f"the record holds {what} that is no table") from error
