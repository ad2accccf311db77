"""Workers that end by a signal, a denied call or a limit, and the evidence that their WorkerCrash holds."""

import signal
import time

import pytest

from fxcell import FX, Limits, PluginError, Policy, Reason, WorkerCrash, load_policy, run, zef_function
from fxcell.policies.crash import DeniedSyscall
from tests.host.crashes import crash_of, raise_signal

MiB = 2**20
SMALL = Policy(name="small", limits=Limits(memory_bytes=128 * MiB, output_bytes=64 * 1024), effects={"Print": True})


# --- signals


@zef_function
def read_null():
    import ctypes

    ctypes.string_at(1)


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


@zef_function
def busy_behind_an_effect():
    import threading

    def burn():
        while True:
            pass

    threading.Thread(target=burn, daemon=True).start()
    FX.Sleep(seconds=40.0) | run


def test_cpu_time_is_watched_while_an_effect_is_performed():
    began = time.monotonic()
    policy = load_policy("compute").replaced(name="short", limits=Limits(cpu_s=0.5, threads=4), effects={"Sleep": True})
    crash = crash_of(busy_behind_an_effect(), policy)
    assert crash.reason is Reason.CPU_LIMIT
    assert time.monotonic() - began < 30


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
