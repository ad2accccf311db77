"""Code that never ends: the limits on CPU time and on the wall clock act from outside."""

import time

import pytest

from fxcell import Reason, zef_function
from tests.escapes.conftest import compute


@zef_function
def loop():
    while True:
        pass


@zef_function
def sleep_long():
    import time

    time.sleep(3600)


@zef_function
def deadlock():
    import threading

    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@zef_function
def match_forever():
    import re

    return re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter lock in C


@zef_function
def ignore_every_signal_and_loop():
    import contextlib
    import signal

    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    while True:
        pass


@zef_function
def loop_in_many_threads():
    import threading

    def work():
        while True:
            sum(range(1000))

    for _ in range(8):
        threading.Thread(target=work).start()
    work()


@zef_function
def stop_self():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSTOP)


@zef_function
def end_the_first_thread_only():
    import ctypes
    import threading
    import time

    threading.Thread(target=time.sleep, args=(3600,)).start()
    ctypes.CDLL(None).syscall(60, 0)  # exit(2) ends one thread; its process goes on


@pytest.mark.parametrize(
    "call",
    [
        loop(),
        sleep_long(),
        deadlock(),
        match_forever(),
        ignore_every_signal_and_loop(),
        stop_self(),
        end_the_first_thread_only(),
    ],
    ids=lambda call: call.definition.name,
)
def test_without_an_answer_the_deadline_ends_it(arena, call):
    started = time.monotonic()
    crash = arena.attack(call, deadline_s=0.4)
    assert crash.reason is Reason.DEADLINE
    assert 0.4 <= time.monotonic() - started < 5


@pytest.mark.parametrize(
    "call",
    [loop(), match_forever(), ignore_every_signal_and_loop(), loop_in_many_threads()],
    ids=lambda call: call.definition.name,
)
def test_burning_cpu_is_ended_by_the_cpu_limit(arena, call):
    crash = arena.attack(call, compute(name="half a second of CPU", limits={"cpu_s": 0.4}))
    assert crash.reason is Reason.CPU_LIMIT
    assert 0.3 < crash.evidence.resources.user_s < 5


@pytest.mark.parametrize("call", [loop(), match_forever()], ids=lambda call: call.definition.name)
def test_the_stack_at_the_deadline_names_the_function(arena, call):
    crash = arena.attack(call, deadline_s=0.4)
    assert f"in {call.definition.name}" in crash.evidence.python_stack


def test_sleeping_past_the_wall_limit_is_a_deadline_and_not_cpu(arena):
    crash = arena.attack(sleep_long(), compute(name="short wall", limits={"wall_s": 0.4, "cpu_s": 0.2}))
    assert crash.reason is Reason.DEADLINE
    assert crash.evidence.resources.user_s < 0.2
