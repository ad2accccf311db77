"""Processes and threads without end: the task limit acts, neighbours keep working, nothing is left."""

import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from tests import leaks
from tests.escapes.conftest import compute

FAMILY = compute(
    name="family", allow=frozenset({"threads", "load_libraries", "processes"}), limits={"processes": 4, "threads": 4}
)


@zef_function
def fork_without_end():
    import os

    made = 0
    try:
        while made < 10_000:
            if os.fork() == 0:
                while True:  # children fork too
                    try:
                        os.fork()
                    except OSError:
                        import time

                        time.sleep(3600)
            made += 1
    except OSError as error:
        return made, error.errno
    return made, 0


@zef_function
def fork_once():
    import os

    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@zef_function
def start_threads(count):
    import threading

    gate = threading.Event()
    made = 0
    try:
        for _ in range(count):
            threading.Thread(target=gate.wait, daemon=True).start()
            made += 1
    except RuntimeError:
        pass
    gate.set()
    return made


@zef_function
def leave_a_daemon_behind():
    import os
    import time

    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
    return os.getpid()


@zef_function
def child_answers_in_the_workers_place():
    import os

    if os.fork() == 0:
        return "from the child"
    os.wait()
    return "from the worker"


def test_fork_bomb_hits_the_task_limit(arena):
    arena.attack(fork_once(), FAMILY)  # its template stays, and is not counted
    with leaks.assert_nothing_left():
        made, error = arena.attack(fork_without_end(), FAMILY)
    assert made <= 8
    assert error == 11  # EAGAIN
    assert arena.control(fork_once()) == 7


def test_fork_is_possible_with_the_word_processes_and_refused_without(arena):
    assert arena.attack(fork_once(), FAMILY) == 7
    refused = arena.attack(fork_once())
    assert isinstance(refused, PluginError)
    assert refused.type_name == "PermissionError"


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_threads_end_at_the_limit(arena, policy):
    made = arena.attack(start_threads(200), policy)
    assert made == {"strict": 0, "compute": 16}[policy]
    assert arena.control(start_threads(10)) == 10


def test_daemon_that_forked_twice_is_gone_with_the_worker(arena):
    arena.attack(fork_once(), FAMILY)
    with leaks.assert_nothing_left():
        assert arena.attack(leave_a_daemon_behind(), FAMILY) == 2


def test_second_answer_from_a_child_is_a_protocol_violation_or_gone_with_the_worker(arena):
    outcome = arena.attack(child_answers_in_the_workers_place(), FAMILY)
    assert outcome in ("from the child", "from the worker") or (
        isinstance(outcome, WorkerCrash) and outcome.reason is Reason.PROTOCOL_VIOLATION
    )
