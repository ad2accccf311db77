"""Workers that end by themselves, by what they write to the host, by others or at their start, and the reason that is told."""

import os
import signal
import subprocess
import sys
import sysconfig
import threading

import psutil
import pytest

from fxcell import FX, Reason, run, zef_function
from tests.host.crashes import crash_of, raise_signal, well_formed

# --- the end by itself, or by others


@pytest.mark.parametrize("code", [0, 3])
def test_exit_in_mid_command_is_exited_and_never_a_success(code):
    @zef_function
    def leave():
        import os

        os._exit(code)

    crash = crash_of(leave())
    assert (crash.reason, crash.evidence.exit_code, crash.signal_name) == (Reason.EXITED, code, None)
    assert f"status {code}" in str(crash)


FORGERIES = {
    "garbage": b"not a frame at all, whatever it is",
    "giant length": b"FXC1" + (2**32 - 1).to_bytes(4, "little"),
    "no capnp": b"FXC1" + (64).to_bytes(4, "little") + b"\xff" * 64,
    "tiny length": b"FXC1" + (3).to_bytes(4, "little") + b"abc",
}


@zef_function
def forge(data):
    import os

    os.write(3, data)


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_frame_is_protocol_violation(name):
    assert crash_of(forge(FORGERIES[name])).reason is Reason.PROTOCOL_VIOLATION


def test_half_a_frame_and_then_silence_is_deadline():
    @zef_function
    def half():
        import os

        os.write(3, b"FXC1" + (100).to_bytes(4, "little") + b"half")
        while True:
            pass

    assert crash_of(half(), deadline_s=0.3).reason is Reason.DEADLINE


def test_half_a_frame_and_then_the_end_says_so():
    @zef_function
    def half():
        import os

        os.write(3, b"FXC1" + (100).to_bytes(4, "little") + b"half")
        os._exit(0)

    crash = crash_of(half())
    assert crash.reason is Reason.EXITED
    assert "in the middle of a message" in str(crash)


def test_answer_to_another_command_is_protocol_violation():
    @zef_function
    def answer_early():
        import sys

        from fxcell.policies import values

        channel = sys.modules["fxcell"].run.channel
        channel.send_value("result", 99, values.pack("forged"))

    assert crash_of(answer_early()).reason is Reason.PROTOCOL_VIOLATION


def test_own_sigkill_is_killed_externally_and_not_out_of_memory():
    crash = crash_of(raise_signal(int(signal.SIGKILL)))
    assert (crash.reason, crash.signal_name) == (Reason.KILLED_EXTERNALLY, "SIGKILL")


@zef_function
def announced():
    FX.Print(content="running") | run
    while True:
        pass


@pytest.fixture
def running(monkeypatch):
    """A worker in the middle of a command: (its handle, the supervisor's pid, a function that gives the crash)."""
    reached, ended = threading.Event(), []

    class Tell:
        def write(self, _text):
            reached.set()

        def flush(self):
            pass

    process = FX.StartWorkerProcess() | run
    pid = next(entry["pid"] for entry in FX.ListWorkerProcesses() | run if entry["process"] == process)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Tell())
        thread = threading.Thread(
            target=lambda: ended.append(run.outcome(FX.SendCommandToWorkerProcess(process=process, command=announced())))
        )
        thread.start()
        assert reached.wait(60)

    def crash():
        thread.join(60)
        return well_formed(ended[0])

    yield process, pid, crash
    FX.StopWorkerProcess(process=process) | run
    thread.join(60)


def test_worker_killed_from_outside_is_killed_externally(running):
    _process, pid, crash = running
    psutil.Process(pid).children()[0].kill()
    assert crash().reason is Reason.KILLED_EXTERNALLY


def test_supervisor_killed_from_outside_is_killed_externally(running):
    _process, pid, crash = running
    os.kill(pid, signal.SIGKILL)
    assert crash().reason is Reason.KILLED_EXTERNALLY


def test_stop_during_a_command_is_stopped(running):
    process, _pid, crash = running
    FX.StopWorkerProcess(process=process) | run
    assert crash().reason is Reason.STOPPED


# --- start

BROKEN_START = """
import sys
from fxcell import *
try:
    FX.StartWorkerProcess(policy=Policy(name="broken", preload=("fxcell_test_broken",))) | run
except WorkerCrash as crash:
    print(crash.reason.value)
    print(str(crash).count(chr(10)), crash.to_dict()["reason"])
worker = FX.StartWorkerProcess() | run
print(FX.SendCommandToWorkerProcess(process=worker, command=7) | run)
"""


DEATHS_AT_IMPORT = {
    "exit": "import os; os._exit(9)",
    "segfault": "import ctypes; ctypes.string_at(1)",
    "exception": "1 / 0",
}


@pytest.mark.parametrize("death", DEATHS_AT_IMPORT)
def test_preloaded_module_that_dies_at_import_is_start_failed(tmp_path, death):
    # A module must be importable by the template, which sees only the interpreter's own folders: a venv of its own.
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", venv], check=True)
    packages = next(venv.glob("lib/python*/site-packages"))
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (packages / "fxcell_test_broken.py").write_text(DEATHS_AT_IMPORT[death] + "\n")
    (tmp_path / "host.py").write_text(BROKEN_START)
    done = subprocess.run([venv / "bin" / "python", tmp_path / "host.py"], capture_output=True, text=True, timeout=100)
    assert done.stdout == "start_failed\n0 start_failed\n7\n", done.stderr
    assert done.returncode == 0
