"""Plugins that go for the host's memory: large texts, results without end, and values that are kept after they were refused."""

import contextlib
import gc
import tracemalloc
from pathlib import Path

import pytest

from fxcell import FX, EffectDenied, Reason, WorkerCrash, run, zef_function
from fxcell.host import registry, sessions
from tests.escapes.under_attack import send
from tests.escapes.under_attack import worker as worker  # noqa: PLC0414 - the fixture


@zef_function
def print_much_and_die():
    import os
    import sys

    sys.stdout.write("x" * 900_000)
    sys.stdout.flush()
    os._exit(1)


def test_what_dead_workers_wrote_is_not_kept(capsys):
    for _ in range(3):
        send(FX.StartWorkerProcess() | run, print_much_and_die())
    gc.collect()
    assert not [session for session in registry._sessions.values() if session.ended]
    assert not [thing for thing in gc.get_objects() if isinstance(thing, sessions.Session) and thing.ended]


@zef_function
def print_wrapped(kind):
    large = b"\x01" * (48 << 20)
    values = {"tuple": (large,), "set": {large}, "effect": FX.Print(content=large), "key": {large: 1}}
    FX.Print(content=values[kind]) | run


@zef_function
def build_an_effect_with_a_wrong_field():
    import struct
    import time

    import msgspec

    import fxcell
    from fxcell.sandbox import wire
    from fxcell.sandbox.kernel import memfd

    large = b"\x01" * (48 << 20)
    buffer = msgspec.msgpack.Ext(17, struct.pack("<I", 0))
    wrapped = msgspec.msgpack.Ext(3, msgspec.msgpack.encode([buffer]))
    parts = msgspec.msgpack.encode(["Sleep", {"seconds": wrapped}])
    message = wire.Message.new_message(id=fxcell.run._effects_sent + 1)
    value = message.init("effect")
    value.body = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, parts))
    value.buffers = [len(large)]
    fxcell.run.channel.send(message, [memfd.create([memoryview(large)])])
    time.sleep(60)


def host_peak_bytes(work):
    """What this process allocated in Python's own memory while `work` ran, at most."""
    gc.collect()
    tracemalloc.start()
    try:
        outcome = work()
        return tracemalloc.get_traced_memory()[1], outcome
    finally:
        tracemalloc.stop()


def test_control_whole_text_of_48_mebibytes_in_a_tuple_takes_four_times_as_much():
    assert host_peak_bytes(lambda: str((b"\x01" * (48 << 20),)))[0] > 4 * 48 << 20


@pytest.mark.parametrize("kind", ["tuple", "set", "effect", "key"])
def test_printing_48_mebibytes_in_a_container_costs_the_host_no_text_of_them(worker, capsys, kind):
    peak, outcome = host_peak_bytes(lambda: send(worker, print_wrapped(kind)))
    assert outcome is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(" [cut]")
    assert peak < 120 << 20  # the value itself, received; its text is 200 MB


def test_error_text_about_48_mebibytes_in_a_tuple_costs_the_host_no_text_of_them(worker):
    peak, outcome = host_peak_bytes(lambda: send(worker, build_an_effect_with_a_wrong_field()))
    assert outcome.reason is Reason.PROTOCOL_VIOLATION
    assert "FX.Sleep.seconds must be float, got tuple (b'" in outcome.detail
    assert peak < 120 << 20


@zef_function
def answer_with_bytes(unit, mebibytes):
    """Write a result by hand: a list of one piece of MessagePack again and again."""
    import os
    import struct
    import time

    import fxcell
    from fxcell.sandbox import value_frames

    count = (mebibytes * 2**20 - 4101) // len(unit)
    frame = value_frames.encode("result", fxcell.run.command, b"\xdd" + struct.pack(">I", count) + unit * count)
    left = memoryview(b"FXC1" + struct.pack("<I", len(frame)) + frame)
    while left:
        left = left[os.write(3, left) :]
    time.sleep(60)


def test_result_of_five_million_tables_is_refused_and_not_built(worker):
    peak, outcome = host_peak_bytes(lambda: send(worker, answer_with_bytes(b"\x81\x00\x00", 16)))
    assert outcome.reason is Reason.PROTOCOL_VIOLATION
    assert "512 MiB once it is decoded" in outcome.detail
    assert peak < 100 << 20  # built, it takes 1.4 GB


def test_control_result_of_a_hundred_thousand_tables_made_by_hand_arrives(worker):
    outcome = send(worker, answer_with_bytes(b"\x81\x00\x00", 1))
    assert len(outcome) == (2**20 - 4101) // 3


@zef_function
def ask_for_a_large_path():
    FX.ReadFile(path="/" + "x" * (8 << 20)) | run


@zef_function
def answer_with_a_call():
    """A large value, and at its end what the host refuses: all before it has been built by then."""
    import os
    import struct
    import time

    import fxcell
    from fxcell.sandbox import value_frames

    body = b"\xdd" + struct.pack(">I", 1_000_001) + b"\xcd\xff\xff" * 1_000_000 + b"\xc7\x01\x02\x90"
    frame = value_frames.encode("result", fxcell.run.command, body)
    left = memoryview(b"FXC1" + struct.pack("<I", len(frame)) + frame)
    while left:
        left = left[os.write(3, left) :]
    time.sleep(60)


REFUSED = {
    "wrong field": build_an_effect_with_a_wrong_field,
    "forbidden value": answer_with_a_call,
    "denied effect": ask_for_a_large_path,
    "broken result": lambda: answer_with_bytes(b"\xc1", 15),
}


@pytest.fixture
def no_garbage_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("no_garbage_collection")
def test_refused_value_is_freed_at_once_even_while_the_outcome_is_kept(attack):
    kept = []

    def crash():
        process = FX.StartWorkerProcess() | run
        kept.append(send(process, attack()))
        FX.StopWorkerProcess(process=process) | run

    crash()  # what is imported and remembered at the first time is not the value
    tracemalloc.start()
    before = open_memory_files(), tracemalloc.get_traced_memory()[0]
    for _ in range(3):
        crash()
    held = tracemalloc.get_traced_memory()[0] - before[1]
    tracemalloc.stop()
    assert open_memory_files() == before[0]
    assert held < 1 << 20
    assert all(isinstance(outcome, WorkerCrash | EffectDenied) for outcome in kept), kept
    assert [outcome.__context__ for outcome in kept] == [None] * 4


def test_control_exception_that_a_frame_of_its_own_traceback_names_keeps_its_value(no_garbage_collection):
    def fail():
        value = b"x" * (8 << 20)
        error = ValueError(len(value))
        raise error

    tracemalloc.start()
    with contextlib.suppress(ValueError):
        fail()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held > 8 << 20


def open_memory_files():
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:fxcell" in line]
