"""Attacks that end in a crash, a limit, or a broken protocol: contained by the process border and by the host, in every tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxcell.host.selftest.attack import EFFECT_DENIED, RAISED, REFUSED, Around, Attack
from fxcell.policies.limits import MiB

_BORDER, _LIMITS, _HOST = "process border", "limits", "host"
_SHORT_S = 0.6
_MANY_MESSAGES_S = 20
"""On a slow machine it takes some seconds to print as much as the limit allows."""
_DIES = frozenset({"signal", "out_of_memory"})
_IN_TIME = frozenset({"deadline", "cpu_limit"})
_PROTOCOL = frozenset({"protocol_violation"})


def _crash(name: str, tries: str, function: str, *ends: str) -> Attack:
    return Attack(name, "crashes", tries, f"crashing.{function}", _BORDER, frozenset(ends))


CRASHES = (
    _crash("segfault", "reads address 0", "read_address_zero", "signal"),
    _crash("abort", "calls abort()", "abort", "signal"),
    _crash("stack_overflow", "recurses in C without end", "overflow_the_stack", *_DIES, RAISED),
    _crash("exit_0", "ends with success instead of answering", "leave", "exited"),
    _crash("kill_self", "dies of SIGKILL", "kill_self", "killed_externally"),
    _crash("bytecode", "runs broken bytecode", "run_broken_bytecode", *_DIES, RAISED, REFUSED),
    _crash("parser", "compiles 100,000 parentheses", "nest_for_the_parser", *_DIES, RAISED, REFUSED),
)


def _memory(around: Around) -> Mapping[str, Any]:
    return {"most_bytes": around.policy.limits.memory_bytes * 5 // 4}


def _tasks(around: Around) -> Mapping[str, Any]:
    return {"most": around.policy.limits.processes + around.policy.limits.threads + 2}


def _output(around: Around) -> int:
    # Bytes are counted when they are read: whatever the pipe holds (64 KiB) is written before anybody could object.
    return around.policy.limits.output_bytes * 2 + 1 * MiB


RESOURCES = (
    Attack("memory", "resources", "takes more memory than the limit", "exhausting.memory", _LIMITS,
           frozenset({"out_of_memory"}), _memory, deadline_s=20),
    Attack("unpack", "resources", "unpacks a small text that becomes large", "exhausting.unpack", _LIMITS,
           frozenset({"out_of_memory"}), _memory, deadline_s=20),
    Attack("forks", "resources", "more processes than the limit", "exhausting.forks", _LIMITS,
           frozenset({REFUSED, "denied_syscall", RAISED}), _tasks),
    Attack("threads", "resources", "more threads than the limit", "exhausting.threads", _LIMITS,
           frozenset({REFUSED, "denied_syscall"}), _tasks),
    Attack("open_files", "resources", "more open files than the limit", "exhausting.descriptors", _LIMITS,
           arguments=lambda a: {"most": a.policy.limits.open_files + 1}),
    Attack("output", "resources", "writes to descriptor 1 without end", "exhausting.output", _LIMITS,
           frozenset({"output_limit"}), lambda a: {"descriptor": 1, "most_bytes": _output(a)}, deadline_s=_MANY_MESSAGES_S),
    Attack("print", "resources", "prints without end", "exhausting.printed", _LIMITS,
           frozenset({"output_limit"}), lambda a: {"most_bytes": _output(a)}, deadline_s=_MANY_MESSAGES_S),
    Attack("scratch", "resources", "fills /tmp", "writing.fill", _LIMITS,
           arguments=lambda a: {"folder": a.sentinels.open_folder if not a.policy.limits.scratch_bytes else "/tmp",
                                "most_bytes": a.policy.limits.scratch_bytes}),
    Attack("loop", "resources", "loops, deaf to signals", "exhausting.loop", _HOST, _IN_TIME, deadline_s=_SHORT_S),
    Attack("sleep", "resources", "sleeps for an hour", "exhausting.sleep", _HOST, _IN_TIME, deadline_s=_SHORT_S),
    Attack("regex", "resources", "holds the interpreter in a regular expression", "exhausting.match", _HOST, _IN_TIME,
           deadline_s=_SHORT_S),
    Attack("stop_self", "resources", "stops itself", "exhausting.stop_self", _HOST, _IN_TIME, deadline_s=_SHORT_S),
)  # fmt: skip


def _bytes(name: str, tries: str, data: bytes, ends: frozenset[str] = _PROTOCOL, deadline_s: float = 6.0) -> Attack:
    return Attack(
        name, "protocol", tries, "forging.write", _HOST, ends, lambda _a: {"data": data}, deadline_s=deadline_s
    )


def _message(name: str, tries: str, kind: str, number: int) -> Attack:
    return Attack(
        name, "protocol", tries, "forging.answer", _HOST, _PROTOCOL, lambda _a: {"kind": kind, "number": number}
    )


PROTOCOL = (
    _bytes("no_frame", "writes bytes that are no frame", b"HELO" + bytes(60)),
    _bytes("huge_length", "says that 4 GiB will come", b"FXC1\xff\xff\xff\xff" + bytes(60)),
    _bytes("pointer_loop", "sends a message whose pointer points to itself",
           b"FXC1\x10\0\0\0" + b"\0\0\0\0\x01\0\0\0" + b"\x02\0\0\0\0\0\0\0"),
    _bytes("half_frame", "sends half a frame, then nothing", b"FXC1\x40\0\0\0", _IN_TIME, _SHORT_S),
    _message("forged_answer", "answers another command", "result", 7),
    _message("forged_effect_answer", "answers an effect in the host's place", "effectResult", 1),
    _message("forged_command", "sends the host a command", "run", 1),
    Attack("descriptors_pushed", "protocol", "sends descriptors", "forging.push_descriptors", _HOST, _PROTOCOL),
    Attack("changing_memory", "protocol", "answers in memory that it can change", "forging.changing_memory", _HOST, _PROTOCOL),
    Attack("closed_channel", "protocol", "closes the channel and goes on", "forging.close", _HOST, _PROTOCOL),
    Attack("ask_for_file", "protocol", "asks the host for the file", "forging.ask", "broker", frozenset({EFFECT_DENIED}),
           lambda a: {"effect": "ReadFile", "fields": {"path": a.sentinels.file}}),
    Attack("ask_for_request", "protocol", "asks the host to call its own listener", "forging.ask", "broker",
           frozenset({EFFECT_DENIED}),
           lambda a: {"effect": "HTTPRequest", "fields": {"url": f"http://127.0.0.1:{a.sentinels.tcp_port}/"}}),
    Attack("ask_for_list", "protocol", "asks the host which workers it has", "forging.ask", "broker",
           frozenset({EFFECT_DENIED}), lambda _a: {"effect": "ListWorkerProcesses", "fields": {}}),
    Attack("ask_for_worker", "protocol", "asks the host for a worker without a sandbox", "forging.start_worker", "broker",
           frozenset({EFFECT_DENIED})),
)  # fmt: skip
