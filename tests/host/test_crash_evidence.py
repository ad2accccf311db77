"""Each way a real worker can end, and the evidence that its WorkerCrash holds."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading

import psutil
import pytest

from fxcell import *
from fxcell.policies.crash import DeniedSyscall
from tests.leaks import assert_nothing_left

MiB = 2**20
SMALL = Policy(name="small", limits=Limits(memory_bytes=128 * MiB, output_bytes=64 * 1024), effects={"Print": True})


def crash_of(command, policy="compute", **options):
    """Send a command that ends its worker; the WorkerCrash, with nothing left."""
    # The template process lives on between workers: have it before anything is counted.
    FX.StopWorkerProcess(process=FX.StartWorkerProcess(policy=policy) | run) | run
    with assert_nothing_left():
        started = FX.StartWorkerProcess(policy=policy) | run
        with pytest.raises(WorkerCrash) as raised:
            FX.SendCommandToWorkerProcess(process=started, command=command, **options) | run
        with pytest.raises(WorkerStopped):
            FX.SendCommandToWorkerProcess(process=started, command=1) | run
        FX.StopWorkerProcess(process=started) | run
    return well_formed(raised.value)


def well_formed(crash):
    assert "\n" not in str(crash)
    assert str(crash).startswith(f"{crash.reason.value}: ")
    stored = json.loads(json.dumps(crash.to_dict(), allow_nan=False))
    assert WorkerCrash.from_dict(stored).to_dict() == stored
    assert stored["reason"] == crash.reason.value
    assert len(crash.dedup_key) == 12
    return crash


# --- signals


@zef_function
def read_null():
    import ctypes

    ctypes.string_at(1)


@zef_function
def raise_signal(number):
    import os

    os.kill(os.getpid(), number)


@zef_function
def abort():
    import os

    os.abort()


@pytest.mark.parametrize(
    ("command", "name", "function"),
    [
        (read_null(), "SIGSEGV", "read_null"),
        (abort(), "SIGABRT", "abort"),
        (raise_signal(int(signal.SIGBUS)), "SIGBUS", "raise_signal"),
        (raise_signal(int(signal.SIGFPE)), "SIGFPE", "raise_signal"),
        (raise_signal(int(signal.SIGILL)), "SIGILL", "raise_signal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fatal_signal_is_named_with_the_function_that_was_running(command, name, function):
    crash = crash_of(command)
    assert crash.reason is Reason.SIGNAL
    assert crash.signal_name == name
    assert name in str(crash)
    assert f"in {function}\n" in crash.evidence.python_stack
    assert crash.evidence.exit_code is None


def test_endless_recursion_in_native_code_is_a_crash_or_an_error_and_the_host_goes_on():
    @zef_function
    def nest():
        return compile("(" * 100_000 + ")" * 100_000, "x", "eval")

    started = FX.StartWorkerProcess() | run
    outcome = run.outcome(FX.SendCommandToWorkerProcess(process=started, command=nest()))
    FX.StopWorkerProcess(process=started) | run
    assert isinstance(outcome, WorkerCrash | PluginError)


# --- what the policy does not allow


def test_denied_syscall_has_name_arguments_and_the_calling_line():
    @zef_function
    def attach():
        import ctypes

        ctypes.CDLL(None).ptrace(16, 4242, 17, 18)

    crash = crash_of(attach())
    call = crash.evidence.syscall
    assert crash.reason is Reason.DENIED_SYSCALL
    assert isinstance(call, DeniedSyscall)
    assert (call.name, call.arguments[:4]) == ("ptrace", (16, 4242, 17, 18))
    assert "ptrace(0x10, 0x1092, 0x11, 0x12" in str(crash)
    assert "in attach\n" in crash.evidence.python_stack


def test_denied_syscall_in_a_thread_shows_that_threads_stack():
    @zef_function
    def in_thread():
        import os
        import threading

        def start_shell():
            os.execv("/bin/sh", ["sh"])

        thread = threading.Thread(target=start_shell)
        thread.start()
        thread.join()

    crash = crash_of(in_thread())
    assert (crash.reason, crash.evidence.syscall.name) == (Reason.DENIED_SYSCALL, "execve")
    current = crash.evidence.python_stack.partition("Current thread")[2]
    assert "in start_shell\n" in current.partition("\n\n")[0]


# --- limits


def test_memory_over_the_limit_is_out_of_memory_and_names_what_enforces_it():
    @zef_function
    def hoard():
        kept = []
        while True:
            kept.append(b"x" * MiB)

    crash = crash_of(hoard(), SMALL)
    assert crash.reason is Reason.OUT_OF_MEMORY
    assert "128 MiB" in str(crash)
    assert "memory cgroup" in str(crash) or "RLIMIT_DATA" in str(crash)
    assert crash.evidence.resources.peak_bytes > 50 * MiB


@zef_function
def busy():
    while True:
        pass


def test_cpu_time_over_the_limit_is_cpu_limit():
    crash = crash_of(busy(), Policy(name="short", limits=Limits(cpu_s=0.3)))
    assert crash.reason is Reason.CPU_LIMIT
    assert "0.3 s" in str(crash)
    assert crash.evidence.resources.user_s + crash.evidence.resources.system_s > 0.2
    assert "in busy\n" in crash.evidence.python_stack


def test_no_answer_in_time_is_deadline_with_the_stack_of_that_moment():
    crash = crash_of(busy(), deadline_s=0.3)
    assert (crash.reason, crash.signal_name) == (Reason.DEADLINE, "SIGKILL")
    assert "in busy\n" in crash.evidence.python_stack
    assert crash.evidence.resources.wall_s >= 0.3


def test_worker_that_stopped_itself_is_deadline():
    @zef_function
    def freeze():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)

    assert crash_of(freeze(), deadline_s=0.3).reason is Reason.DEADLINE


def test_output_over_the_limit_by_print_is_output_limit():
    @zef_function
    def flood():
        while True:
            print("y" * 1000)

    crash = crash_of(flood(), SMALL)
    assert crash.reason is Reason.OUTPUT_LIMIT
    assert crash.evidence.stdout_tail.endswith("yyyy") or crash.evidence.stdout_tail.endswith("y\n")


def test_output_over_the_limit_by_descriptor_is_output_limit():
    @zef_function
    def flood():
        import os

        while True:
            os.write(2, b"z" * 1000)

    crash = crash_of(flood(), SMALL)
    assert crash.reason is Reason.OUTPUT_LIMIT
    assert "zzzz" in crash.evidence.stderr_tail


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


# --- what else the evidence holds


def test_evidence_names_effects_layers_digests_and_the_tails():
    @zef_function
    def busy_life():
        import os
        import sys

        FX.Print(content="one") | run
        FX.RandomBytes(count=4) | run
        print("to stdout")
        print("to stderr", file=sys.stderr)
        os.write(2, b"straight to the descriptor\n")
        os._exit(0)

    evidence = crash_of(busy_life()).evidence
    assert (evidence.last_effect, evidence.open_effect, evidence.effects_performed) == ("RandomBytes", None, 2)
    assert evidence.stdout_tail == "to stdout\n"
    assert evidence.stderr_tail == "to stderr\nstraight to the descriptor\n"
    assert evidence.layers == ("namespaces", "minimal_root", "limits", "privileges", "landlock", "seccomp", "hygiene")
    assert evidence.policy == load_policy("compute").digest[:12]
    assert evidence.plugin == busy_life.definition.digest[:12]
    assert len(evidence.command) == 12
    assert evidence.worker.startswith("w")
    assert 0 < evidence.resources.wall_s < 60
    assert evidence.resources.peak_bytes > MiB


def test_same_fault_at_the_same_place_has_the_same_dedup_key():
    keys = {crash_of(command).dedup_key for command in (read_null(), read_null(), abort())}
    assert len(keys) == 2


def test_trusted_profile_reports_only_its_own_layers():
    crash = crash_of(abort(), "trusted")
    assert (crash.reason, crash.signal_name) == (Reason.SIGNAL, "SIGABRT")
    assert crash.evidence.layers == ("limits", "hygiene")
