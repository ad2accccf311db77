"""A worker that dies while no command is running: nobody waits for it, and yet it is not listed as one that lives."""

import time

from fxcell import FX, WorkerCrash, run, zef_function
from fxcell.host import registry
from tests.escapes.conftest import add


@zef_function
def die_after_the_answer():
    import os

    import fxcell

    channel = fxcell.run.channel
    send_value = channel.send_value

    def send_and_leave(*arguments):
        send_value(*arguments)
        os._exit(7)

    channel.send_value = send_and_leave
    return "answered"


def listed():
    return {row["process"] for row in FX.ListWorkerProcesses() | run}


def test_worker_that_dies_while_idle_is_not_listed_and_the_next_command_says_how_it_died(arena):
    dead, living = FX.StartWorkerProcess() | run, FX.StartWorkerProcess() | run
    assert {dead, living} <= listed()
    assert FX.SendCommandToWorkerProcess(process=dead, command=die_after_the_answer()) | run == "answered"
    assert FX.SendCommandToWorkerProcess(process=living, command=add(1, 1)) | run == 2
    end = time.monotonic() + 10
    while dead in listed() and time.monotonic() < end:
        time.sleep(0.01)
    assert dead not in listed()
    assert living in listed()
    assert registry.session_of(dead).state == "idle"  # it is known, for what comes next
    crash = run.outcome(FX.SendCommandToWorkerProcess(process=dead, command=add(1, 1)))
    assert isinstance(crash, WorkerCrash)
    assert crash.evidence.exit_code == 7
    FX.StopWorkerProcess(process=living) | run
