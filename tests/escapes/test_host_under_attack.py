"""Plugins that go for the host process itself: its time, its terminal, its judgement. Found by attacking, kept as tests."""

import errno
import time

import pytest

from fxcell import FX, EffectDenied, PluginError, Reason, WorkerCrash, WorkerStopped, load_policy, run, zef_function
from fxcell.host import exchange, idling
from fxcell.policies import decoding, values
from fxcell.policies.limits import Limits
from tests.escapes.under_attack import answer, send
from tests.escapes.under_attack import worker as worker  # noqa: PLC0414 - the fixture
from tests.leaks import assert_nothing_left


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


@pytest.mark.parametrize("wrap", [lambda work: {"x": work}, lambda work: (1, [work])], ids=["table", "tuple"])
def test_effect_inside_a_forged_result_reaches_no_host_that_could_hand_it_on(worker, wrap):
    outcome = send(worker, answer_with_work(wrap(FX.Now())))
    assert isinstance(outcome, WorkerCrash)
    assert outcome.reason is Reason.PROTOCOL_VIOLATION


@zef_function
def shown(value):
    return repr(value)


def test_effect_inside_a_table_is_refused_in_a_result_and_a_value_in_an_argument(worker):
    value = {"effects": (FX.Now(), [FX.Print(content="x")])}
    with pytest.raises(PluginError, match="holds an effect inside another value"):
        run(pass_on(worker, answer(value)))
    assert run(pass_on(worker, shown(value))) == repr(value)


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
