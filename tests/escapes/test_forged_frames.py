"""A plugin that speaks on the channel itself: bytes that are no frames, answers and effects that nobody asked for."""

import time

import pytest

from fxcell import FX, PluginError, Reason, WorkerCrash, run, zef_function
from tests.escapes.conftest import add, compute

PERMISSIVE = compute(name="small messages", limits={"message_bytes": 64 * 1024})


@zef_function
def write_bytes(data, then):
    import os
    import time

    rest = memoryview(data)
    while rest:
        rest = rest[os.write(3, rest) :]
    if then == "wait":
        time.sleep(3600)
    if then == "leave":
        os._exit(0)
    return "answered"


@zef_function
def send_messages(specs, then):
    """specs: (kind, id, body) of value messages, ("failure", id, None), ("hello", 0, b"…") …

    An id that is None is the number of the command that is running.
    """
    import time

    import fxcell
    from fxcell.policies import values
    from fxcell.sandbox import wire

    channel = fxcell.run.channel
    for kind, given, content in specs:
        number = fxcell.run.command if given is None else given
        if kind in ("result", "effect", "run", "effectResult"):
            channel.send_value(kind, number, values.pack(content))
            continue
        message = wire.Message.new_message(id=number)
        target = message.init(kind) if kind not in ("stop", "listening", "open", "opened") else None
        if kind == "output":
            target.stream, target.data = 1, content
        elif kind == "failure":
            target.kind, target.typeName, target.message = content
        elif kind == "stop":
            message.stop = None
        channel.send(message)
    if then == "wait":
        time.sleep(3600)
    return "answered"


@zef_function
def send_with_descriptors(count):
    import time

    import fxcell
    from fxcell.sandbox import wire

    message = wire.Message.new_message()
    output = message.init("output")
    output.stream, output.data = 1, b"x"
    fxcell.run.channel.send(message, [0] * count)
    time.sleep(3600)


@zef_function
def send_unsealed_memory():
    import os
    import time

    import fxcell
    from fxcell.sandbox import wire

    descriptor = os.memfd_create("unsealed")
    os.write(descriptor, bytes(100_000))
    message = wire.Message.new_message(id=1)
    value = message.init("result")
    value.body, value.buffers = b"\xc0", [100_000]
    fxcell.run.channel.send(message, [descriptor])
    time.sleep(3600)


@zef_function
def flood(seconds, data):
    import os
    import time

    from fxcell.sandbox import wire

    message = wire.Message.new_message()
    output = message.init("output")
    output.stream, output.data = 1, data
    body = message.to_bytes()
    frame = wire.MAGIC + len(body).to_bytes(4, "little") + body
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.write(3, frame * 100)


@zef_function
def effects_without_reading_answers(count):
    import os

    from fxcell import FX
    from fxcell.policies import values
    from fxcell.sandbox import wire

    body = values.pack(FX.Now()).body
    for number in range(1, count + 1):
        message = wire.Message.new_message(id=number)
        message.init("effect").body = body
        frame = message.to_bytes()
        os.write(3, wire.MAGIC + len(frame).to_bytes(4, "little") + frame)
    return "sent all"


@zef_function
def print_frames():
    """Text that looks like frames, by every way that prints."""
    import os
    import sys

    frame = b"FXC1\x10\0\0\0" + bytes(16)
    print(frame.decode("latin-1"))
    sys.stdout.buffer.write(frame)
    os.write(1, frame)
    os.write(2, frame)
    return "answered"


@zef_function
def effect_raw(name, fields):
    """An effect message as plain MessagePack, past every check of the worker's side."""
    import msgspec

    import fxcell
    from fxcell.policies import values
    from fxcell.sandbox import wire

    body = msgspec.msgpack.encode(msgspec.msgpack.Ext(int(values.Ext.EFFECT), msgspec.msgpack.encode([name, fields])))
    message = wire.Message.new_message(id=1)
    message.init("effect").body = body
    channel = fxcell.run.channel
    channel.send(message)
    answer = channel.receive()
    return answer.which(), str(answer.failure.kind) if answer.which() == "failure" else ""


GARBAGE = {
    "no magic": b"HELO" + bytes(60),
    "4 GiB": b"FXC1\xff\xff\xff\xff" + bytes(60),
    "length 0": b"FXC1\0\0\0\0" + bytes(60),
    "all ones": b"FXC1\x40\0\0\0" + b"\xff" * 64,
    "far pointer to itself": b"FXC1\x10\0\0\0" + b"\0\0\0\0\x01\0\0\0" + b"\x02\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("then", ["wait", "answer", "leave"])
@pytest.mark.parametrize("name", GARBAGE)
def test_bytes_that_are_no_message_are_a_protocol_violation(arena, name, then):
    crash = arena.attack(write_bytes(GARBAGE[name], then))
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason is Reason.PROTOCOL_VIOLATION, crash


@pytest.mark.parametrize("part", [b"F", b"FXC1", b"FXC1\x40\0\0\0", b"FXC1\0\0\0\x01" + bytes(1000)], ids=len)
def test_half_a_frame_and_then_silence_is_a_deadline(arena, part):
    started = time.monotonic()
    crash = arena.attack(write_bytes(part, "wait"), deadline_s=0.4)
    assert crash.reason is Reason.DEADLINE
    assert time.monotonic() - started < 5


def test_half_a_frame_and_then_the_end_is_an_exit_in_the_middle_of_a_message(arena):
    crash = arena.attack(write_bytes(b"FXC1\x40\0\0\0abc", "leave"))
    assert crash.reason is Reason.EXITED
    assert "middle of a message" in str(crash)


FORGED = {
    "result of another command": [("result", 7, "forged")],
    "result of no command": [("result", 0, "forged")],
    "failure of another command": [("failure", 7, ("plugin", "E", "m"))],
    "second hello": [("hello", 0, None)],
    "run sent to the host": [("run", 1, "forged")],
    "effect result sent to the host": [("effectResult", 1, "forged")],
    "stop sent to the host": [("stop", 0, None)],
    "ended sent by the worker": [("ended", 0, None)],
    "kill sent by the worker": [("kill", 0, None)],
    "define sent to the host": [("define", 0, None)],
    "spawned sent by the worker": [("spawned", 0, None)],
    "effect that is no effect": [("effect", 1, {"name": "Print"})],
    "effect out of order": [("effect", 2, None)],
    "effect with number 0": [("effect", 0, None)],
}


@pytest.mark.parametrize("name", FORGED)
def test_message_out_of_turn_is_a_protocol_violation(arena, name):
    crash = arena.attack(send_messages(FORGED[name], "wait"))
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason is Reason.PROTOCOL_VIOLATION, crash


def test_two_answers_to_one_command_reach_nobody_else(arena):
    worker = FX.StartWorkerProcess(policy="compute") | run
    send = lambda command: run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, deadline_s=10))
    assert send(send_messages([("result", None, "first")], "answer")) == "first"
    later = send(add(1, 1))  # the plugin's own answer to command 1 is in the way
    assert isinstance(later, WorkerCrash)
    assert later.reason is Reason.PROTOCOL_VIOLATION
    FX.StopWorkerProcess(process=worker) | run


def test_answer_sent_ahead_for_the_next_command_is_a_protocol_violation(arena):
    worker = FX.StartWorkerProcess(policy="compute") | run
    send = lambda command: run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, deadline_s=10))
    assert send(send_messages([("result", None, "first"), ("result", 2, "ahead")], "answer")) == "first"
    assert send(add(1, 1)).reason is Reason.PROTOCOL_VIOLATION
    FX.StopWorkerProcess(process=worker) | run


@pytest.mark.parametrize("count", [1, 4, 5, 100])
def test_descriptors_pushed_to_the_host_are_closed(arena, count):
    crash = arena.attack(send_with_descriptors(count))
    assert crash.reason is Reason.PROTOCOL_VIOLATION


def test_memory_that_the_worker_could_still_change_is_refused(arena):
    assert arena.attack(send_unsealed_memory()).reason is Reason.PROTOCOL_VIOLATION


def test_flood_of_small_messages_does_not_move_the_deadline(arena):
    started = time.monotonic()
    crash = arena.attack(flood(30, b"x"), deadline_s=0.5)
    assert crash.reason in (Reason.DEADLINE, Reason.OUTPUT_LIMIT)
    assert time.monotonic() - started < 8


def test_output_messages_without_output_are_refused_at_the_first(arena):
    crash = arena.attack(flood(30, b""))
    assert crash.reason is Reason.PROTOCOL_VIOLATION
    assert "without output" in crash.detail


def test_effects_whose_answers_nobody_reads_end_in_time(arena):
    started = time.monotonic()
    outcome = arena.attack(effects_without_reading_answers(1_000_000), deadline_s=3)
    assert isinstance(outcome, WorkerCrash)
    assert outcome.reason in (Reason.DEADLINE, Reason.PROTOCOL_VIOLATION)
    assert time.monotonic() - started < 10


def test_printed_bytes_that_look_like_frames_are_only_text(arena):
    assert arena.attack(print_frames()) == "answered"


@pytest.mark.parametrize(
    "name",
    [
        "ReadFile",
        "HTTPRequest",
        "StartWorkerProcess",
        "print",
        "PRINT",
        "Ｐrint",
        "Print\0",
        "Print ",
        "__init__",
        "NoSuchEffect",
        "",
    ],
)
def test_effect_that_is_not_granted_under_any_spelling_is_not_performed(arena, name):
    fields = {"ReadFile": {"path": str(arena.sentinel)}, "HTTPRequest": {"url": "http://127.0.0.1:1/"}}.get(
        name, {"content": "x"}
    )
    outcome = arena.attack(effect_raw(name, fields))
    assert isinstance(outcome, tuple | WorkerCrash), outcome
    if isinstance(outcome, WorkerCrash):
        assert outcome.reason is Reason.PROTOCOL_VIOLATION  # no such effect: these bytes are no value
    else:
        assert outcome == ("failure", "denied")


@zef_function
def big_result(mebibytes):
    return b"x" * (mebibytes << 20)


@zef_function
def big_result_of_small_parts(count):
    return ["x" * 99 for _ in range(count)]


@zef_function
def forge_big_result(size):
    import time

    import fxcell
    from fxcell.sandbox import wire

    message = wire.Message.new_message(id=1)
    message.init("result").body = b"\xc6" + (size - 5).to_bytes(4, "big") + bytes(size - 5)
    fxcell.run.channel.send(message)
    time.sleep(3600)


def test_result_over_the_limit_is_an_error_that_names_the_limit(arena):
    for call in (big_result(1), big_result_of_small_parts(10_000)):
        outcome = arena.attack(call, PERMISSIVE)
        assert isinstance(outcome, PluginError), outcome
        assert outcome.type_name == "MessageTooLarge"
        assert "message_bytes" in outcome.message


def test_result_over_the_limit_that_is_sent_all_the_same_is_a_protocol_violation(arena):
    assert arena.attack(forge_big_result(1_000_000), PERMISSIVE).reason is Reason.PROTOCOL_VIOLATION


@zef_function
def raise_giant():
    raise ValueError("x" * 50_000_000)


@zef_function
def raise_unprintable():
    class Strange(Exception):
        def __str__(self):
            raise RuntimeError("no text")

        __repr__ = __str__

    raise Strange


@zef_function
def raise_with_lone_surrogate():
    raise ValueError("\ud800")


def test_giant_exception_is_cut(arena):
    error = arena.attack(raise_giant())
    assert error.type_name == "ValueError"
    assert len(error.message) < 5_000
    assert len(error.traceback) < 20_000


@pytest.mark.parametrize(
    "call", [raise_unprintable(), raise_with_lone_surrogate()], ids=lambda call: call.definition.name
)
def test_exception_whose_text_cannot_be_shown_is_an_error(arena, call):
    assert isinstance(arena.attack(call), PluginError)
