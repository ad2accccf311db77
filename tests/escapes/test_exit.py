"""A worker that exits in the middle of a request has crashed: no exit status is a success."""

import pytest

from fxcell import Reason, zef_function


@zef_function
def leave(status):
    import os

    os._exit(status)


@zef_function
def leave_politely():
    import sys

    sys.exit(0)


@zef_function
def leave_from_a_thread():
    import os
    import threading

    thread = threading.Thread(target=os._exit, args=(0,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("status", [0, 1, 125])
def test_exit_in_a_request_is_a_crash_with_the_status(arena, status):
    crash = arena.attack(leave(status))
    assert (crash.reason, crash.evidence.exit_code) == (Reason.EXITED, status)
    assert arena.control(leave(status)).evidence.exit_code == status


def test_exit_from_another_thread_is_a_crash(arena):
    assert arena.attack(leave_from_a_thread()).reason is Reason.EXITED


def test_sys_exit_is_an_error_of_the_plugin(arena):
    assert arena.attack(leave_politely()).type_name == "SystemExit"
