"""Plugins that go for the host process itself: its time, its memory, its judgement. Found by attacking, kept as tests."""

import contextlib
import errno
import gc
import time
import tracemalloc
from pathlib import Path

import pytest

from fxcell import *
from fxcell.host import exchange, idling, registry, sessions
from fxcell.policies import decoding, values
from fxcell.policies.limits import Limits
from tests.leaks import assert_nothing_left


@pytest.fixture
def worker():
    process = FX.StartWorkerProcess() | run
    yield process
    FX.StopWorkerProcess(process=process) | run


def send(worker, command, **options):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, **options))


@zef_function
def answer(value):
    return value


@zef_function
def ask_for_too_many_bytes():
    return FX.RandomBytes(count=10**5000) | run


def test_number_too_long_to_write_down_is_denied_like_any_other(worker):
    assert isinstance(send(worker, ask_for_too_many_bytes()), EffectDenied)
    assert send(worker, answer(1)) == 1


@zef_function
def blame_the_caller():
    from fxcell.policies.errors import PluginNotUsable

    raise PluginNotUsable("the policy file cannot be read")


def test_error_of_ours_raised_by_a_plugin_is_the_plugins(worker):
    outcome = send(worker, blame_the_caller())
    assert isinstance(outcome, PluginError)
    assert outcome.type_name == "PluginNotUsable"


@zef_function
def raise_escapes():
    raise type("Evil\x1b[31m", (Exception,), {})("\x1b]0;title\x07\u202etext\nsecond line")


def test_escape_sequences_in_an_error_are_text(worker):
    outcome = send(worker, raise_escapes())
    for text in (str(outcome), outcome.type_name, outcome.message, outcome.traceback):
        assert not set(text) & set("\x1b\x07\u202e")
    assert "\nsecond line" in outcome.message


@zef_function
def leave_a_busy_thread():
    import threading

    def burn():
        while True:
            pass

    threading.Thread(target=burn, daemon=True).start()
    return "gone on"


def test_worker_that_works_between_commands_is_ended():
    process = FX.StartWorkerProcess() | run
    quiet = FX.StartWorkerProcess() | run
    assert send(process, leave_a_busy_thread()) == "gone on"
    deadline = time.monotonic() + 30
    while any(row["process"] == process for row in FX.ListWorkerProcesses() | run) and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(WorkerStopped, match="CPU time while no command was running"):
        FX.SendCommandToWorkerProcess(process=process, command=answer(1)) | run
    assert send(quiet, answer(2)) == 2  # as long idle, and not ended
    FX.StopWorkerProcess(process=quiet) | run
    assert idling.IDLE_CPU_S > 0


@zef_function
def leave_an_answer_for_the_next():
    import os
    import struct

    from fxcell.policies import values
    from fxcell.sandbox import value_frames

    for number in range(4):
        frame = value_frames.encode("result", number, values.encode_value("forged"))
        os.write(3, struct.pack("<4sI", b"FXC1", len(frame)) + frame)


def test_answer_left_on_the_channel_is_never_taken_for_the_next_commands():
    process = FX.StartWorkerProcess() | run
    outcome = send(process, leave_an_answer_for_the_next())
    assert isinstance(outcome, WorkerCrash)
    assert outcome.reason is Reason.PROTOCOL_VIOLATION


@zef_function
def write_a_stack_that_is_slow_to_search():
    import os

    os.write(5, b'File "' * 2000 + b"a" * 20_000)
    os._exit(1)


def test_key_of_a_made_up_stack_is_found_at_once(worker):
    outcome = send(worker, write_a_stack_that_is_slow_to_search())
    assert len(outcome.dedup_key) == 12  # the search that was here before took 5 s
    assert outcome.to_dict()["dedup_key"] == outcome.dedup_key


@zef_function
def flood_the_stack_pipe():
    import os

    while True:
        os.write(5, bytes(65536))


def test_flood_of_the_stack_pipe_is_output_limit(worker):
    crash = send(worker, flood_the_stack_pipe())
    assert crash.reason is Reason.OUTPUT_LIMIT
    assert "pipe for its Python stack (descriptor 5)" in crash.detail


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
def print_a_lot_of_bytes():
    FX.Print(content=b"\xff" * (60 << 20)) | run
    FX.Print(content={"a": ["x" * (15 << 20)]}) | run


def test_printing_75_mebibytes_is_two_short_lines(worker, capsys):
    assert send(worker, print_a_lot_of_bytes()) is None
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines] == [65536, 65536]


@zef_function
def print_without_line_end():
    print("no line end", end="")


def test_line_without_an_end_is_shown_when_its_command_is_over(worker, capsys):
    send(worker, print_without_line_end())
    assert capsys.readouterr().out == "no line end\n"


@zef_function
def lock_a_library_file():
    import fcntl

    import msgspec

    with open(msgspec.__file__, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_library_file_is_not_locked_for_others_even_with_scratch_space():
    policy = load_policy("compute").replaced(
        allow=frozenset({"threads", "load_libraries", "scratch"}), limits=Limits(scratch_bytes=1 << 20)
    )
    process = FX.StartWorkerProcess(policy=policy) | run
    outcome = send(process, lock_a_library_file())
    assert isinstance(outcome, PluginError)
    assert outcome.type_name in ("PermissionError", "OSError")
    FX.StopWorkerProcess(process=process) | run
    control = FX.StartWorkerProcess(policy="trusted") | run
    assert send(control, lock_a_library_file()) is None
    FX.StopWorkerProcess(process=control) | run


@zef_function
def map_memory_files(mebibytes):
    import ctypes
    import mmap
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    block = bytes(1 << 20)
    for done in range(0, mebibytes, 32):
        descriptor = os.memfd_create("x", 1)
        for _ in range(32):
            os.write(descriptor, block)
        address = libc.mmap(None, ctypes.c_size_t(32 << 20), mmap.PROT_READ, mmap.MAP_SHARED, descriptor, ctypes.c_long(0))
        if address in (None, 2**64 - 1):
            return done
        os.close(descriptor)
    return mebibytes


def test_mapped_memory_files_are_limited_with_or_without_a_cgroup():
    policy = load_policy("compute").replaced(limits=Limits(memory_bytes=256 << 20, wall_s=30))
    process = FX.StartWorkerProcess(policy=policy) | run
    outcome = send(process, map_memory_files(3072))
    if isinstance(outcome, WorkerCrash):
        assert outcome.reason is Reason.OUT_OF_MEMORY
    else:
        assert outcome < 2 * 256 + 1024
    FX.StopWorkerProcess(process=process) | run


def test_all_of_it_leaves_nothing_behind():
    with assert_nothing_left():
        process = FX.StartWorkerProcess() | run
        send(process, flood_the_stack_pipe())


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


def test_result_decoded_after_the_deadline_is_no_success(worker, monkeypatch):
    # The clock jumps while a result is decoded, so that nothing depends on how fast this machine is.
    real = decoding.decode_value
    late = [0.0]

    def slow(*arguments, **named):
        late[0] = 3600.0
        return real(*arguments, **named)

    clock = time.monotonic
    monkeypatch.setattr(values, "decode_value", slow)
    monkeypatch.setattr(exchange.time, "monotonic", lambda: clock() + late[0])
    outcome = send(worker, answer("x"), deadline_s=30)
    monkeypatch.undo()
    assert outcome.reason is Reason.DEADLINE


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


@zef_function
def answer_with_work(value):
    import os
    import struct
    import time

    import fxcell
    from fxcell.policies import values
    from fxcell.sandbox import value_frames

    frame = value_frames.encode("result", fxcell.run.command, values.pack(value).body)
    os.write(3, b"FXC1" + struct.pack("<I", len(frame)) + frame)
    time.sleep(60)


@zef_function
def pass_on(worker, command):
    return FX.SendCommandToWorkerProcess(process=worker, command=command) | run


@pytest.mark.parametrize("wrap", [lambda work: work, lambda work: [1, [work]]], ids=["effect", "list"])
def test_effect_as_a_forged_result_is_not_performed_by_host_code_that_passes_results_on(tmp_path, worker, wrap):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    work = FX.ReadFile(path=str(secret))
    assert run(answer(wrap(work))) == wrap(b"of the host")  # the control: here the host's own function answers it
    outcome = run.outcome(pass_on(worker, answer_with_work(wrap(work))))
    assert isinstance(outcome, WorkerCrash)
    assert outcome.reason is Reason.PROTOCOL_VIOLATION


def test_effect_inside_a_table_is_a_value_like_any_other(worker):
    value = {"effects": (FX.Now(), [FX.Print(content="x")])}
    assert run(pass_on(worker, answer(value))) == value


@zef_function
def call_number(number):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc.syscall(ctypes.c_long(number)), ctypes.get_errno()


def test_system_call_minus_one_is_no_call_and_blames_nobody():
    policy = load_policy("compute").replaced(preload=("ctypes",))
    process = FX.StartWorkerProcess(policy=policy) | run
    try:
        assert send(process, call_number(-1)) == (-1, errno.ENOSYS)
        assert send(process, answer(1)) == 1
        assert send(process, call_number(600)).reason is Reason.DENIED_SYSCALL
    finally:
        FX.StopWorkerProcess(process=process) | run
