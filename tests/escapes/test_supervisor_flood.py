"""Line 18: calls that the supervisor itself must answer, from every thread without end, put no deadline off.
Line 16: a plugin that holds the lock of the channel."""

import time

from fxcell import Reason, zef_function
from tests.escapes.conftest import compute


@zef_function
def ask_the_supervisor_without_end(threads):
    import ctypes
    import threading

    libc = ctypes.CDLL(None)

    def work():
        while True:
            libc.ioctl(
                0, ctypes.c_ulong(0x5412), 0
            )  # allowed with other arguments only, so it is the supervisor's to refuse

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    work()


@zef_function
def hold_the_channels_lock():
    import fxcell

    fxcell.run.channel._sending.acquire()
    return "the answer never comes"


@zef_function
def signal_itself_without_end():
    import os
    import signal

    while True:
        os.kill(os.getpid(), signal.SIGUSR2)  # the supervisor's pipe for stacks fills


def test_flood_of_calls_for_the_supervisor_ends_at_the_deadline(arena):
    started = time.monotonic()
    crash = arena.attack(ask_the_supervisor_without_end(8), deadline_s=0.7)
    assert crash.reason is Reason.DEADLINE
    assert time.monotonic() - started < 6


def test_flood_of_stacks_ends_in_time(arena):
    started = time.monotonic()
    crash = arena.attack(signal_itself_without_end(), deadline_s=0.7)
    assert crash.reason in (Reason.DEADLINE, Reason.OUTPUT_LIMIT)
    assert time.monotonic() - started < 6
    assert len(crash.evidence.python_stack) <= 64 * 1024


def test_answer_behind_a_held_lock_is_a_deadline(arena):
    crash = arena.attack(hold_the_channels_lock(), deadline_s=0.5)
    assert crash.reason is Reason.DEADLINE
    assert arena.control(ask_nothing()) == "answered"


@zef_function
def ask_nothing():
    return "answered"


@zef_function
def burn():
    while True:
        pass


def limited():
    return compute(name="one second of CPU", limits={"cpu_s": 1.0})


def test_time_of_the_supervisor_counts_for_the_plugin_that_takes_it(arena):
    crash = arena.attack(ask_the_supervisor_without_end(3), limited())
    assert crash.reason is Reason.CPU_LIMIT
    assert crash.evidence.resources.user_s + crash.evidence.resources.system_s < 0.9  # the rest is the supervisor's


def test_control_time_of_the_plugin_itself_is_the_limit(arena):
    crash = arena.attack(burn(), limited())
    assert crash.reason is Reason.CPU_LIMIT
    assert crash.evidence.resources.user_s + crash.evidence.resources.system_s >= 0.9
