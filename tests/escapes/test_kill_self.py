"""A worker that kills itself: told apart from memory, deadline and the host's own kill."""

import signal

import pytest

from fxcell import Reason, zef_function


@zef_function
def raise_signal(number):
    import os

    os.kill(os.getpid(), number)
    while True:
        pass


def test_sigkill_of_self_is_external_and_not_memory(arena):
    crash = arena.attack(raise_signal(int(signal.SIGKILL)))
    assert (crash.reason, crash.evidence.signal) == (Reason.KILLED_EXTERNALLY, signal.SIGKILL)
    assert arena.control(raise_signal(int(signal.SIGKILL))).evidence.signal == signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGFPE, signal.SIGILL, signal.SIGBUS, signal.SIGSYS])
def test_a_signal_of_its_own_is_named(arena, number):
    crash = arena.attack(raise_signal(int(number)))
    assert (crash.reason, crash.evidence.signal, crash.signal_name) == (Reason.SIGNAL, number, number.name)


def test_stack_signal_of_its_own_ends_nothing_before_the_deadline(arena):
    crash = arena.attack(raise_signal(int(signal.SIGUSR2)), deadline_s=0.5)
    assert crash.reason is Reason.DEADLINE
