"""The end of a program waits for starts and ends of workers that its daemon threads are in the middle of."""

import subprocess
import sys
import threading
import time

import pytest

from fxcell.host import cgroups, unfinished
from tests.dead_hosts import groups_of, sweep_until_gone
from tests.leaks import assert_nothing_left

STEPS = ["trial", "start", "stop"]


def output_of(script):
    program = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert program.returncode == 0, program.stderr
    return program.stdout


def ended(*words):
    """A host that ended in the middle of a step; its process id."""
    command = [sys.executable, "-m", "tests.programs.ending_host", *words]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        told = program.communicate(timeout=90)
    assert (program.returncode, told[0]) == (0, "in the middle\n"), told
    return program.pid


@pytest.fixture
def groups():
    if not cgroups.places():
        pytest.skip("this user cannot make cgroups here")


@pytest.mark.parametrize("step", STEPS)
def test_program_that_ends_in_the_middle_of_a_step_leaves_nothing(groups, step):
    with assert_nothing_left():
        ended(step)


@pytest.mark.parametrize("step", STEPS)
def test_control_without_the_wait_a_group_is_left_and_a_later_host_takes_it_away(groups, step):
    with assert_nothing_left():
        pid = ended(step, "cut")
        assert groups_of(pid)
        cgroups.sweep(cgroups.places())  # too young
        assert groups_of(pid)
        assert sweep_until_gone(lambda: groups_of(pid), patience_s=5) == []


LATE = """
import atexit
atexit.register(lambda: late())  # what was registered first is run last
from fxcell import FX, WorkerStopped, run

def late():
    try:
        print(type(FX.StartWorkerProcess() | run).__name__)
    except WorkerStopped as stopped:
        print(stopped)

late()
"""


def test_no_worker_is_started_once_the_program_ends():
    assert output_of(LATE) == "WorkerProcess\nthe program is ending: no worker is started any more\n"


def test_a_thread_waits_neither_for_itself_nor_for_one_that_is_gone(monkeypatch):
    monkeypatch.setattr(unfinished, "PATIENCE_S", 5.0)
    interrupted = unfinished.step()
    thread = threading.Thread(target=interrupted.__enter__)
    thread.start()
    thread.join()
    with unfinished.step():
        began = time.monotonic()
        assert unfinished.finish()
        assert time.monotonic() - began < 4
    interrupted.__exit__(None, None, None)


def test_wait_for_a_step_that_does_not_end_is_bounded(monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def long():
        with unfinished.step():
            begun.set()
            go.wait(60)

    thread = threading.Thread(target=long)
    thread.start()
    assert begun.wait(60)
    with monkeypatch.context() as hasty:
        hasty.setattr(unfinished, "PATIENCE_S", 0.1)
        assert not unfinished.finish()
    go.set()
    thread.join()
    assert unfinished.finish()


STARTING = """
import os, threading
from fxcell import FX, host, run
from fxcell.host import registry, unfinished

threads = [threading.Thread(target=lambda: FX.StartWorkerProcess() | run) for _ in range(4)]
for thread in threads:
    thread.start()
while len(unfinished._steps) + len(registry._sessions) < len(threads):
    pass
host.shutdown()
print(len(FX.ListWorkerProcesses() | run), flush=True)
os._exit(0)  # with nothing more done
"""


def test_shutdown_waits_for_what_other_threads_are_starting_and_stops_it():
    with assert_nothing_left():
        assert output_of(STARTING) == "0\n"
