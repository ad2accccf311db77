"""Workers and their callers: many threads, one that stops another's command, an interrupt, a host that is killed."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fxcell import FX, Reason, WorkerCrash, run, zef_function
from fxcell.host import cgroups
from tests import leaks
from tests.host.sending import echo, send, stop
from tests.host.sending import worker as worker  # noqa: PLC0414 - the fixture
from tests.leaks import assert_nothing_left


def test_threads_on_one_worker_each_get_their_own_answer(worker):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: send(worker, echo(number)), range(200)))
    assert answers == list(range(200))


def test_crash_of_one_worker_leaves_the_others_answering():
    @zef_function
    def crash():
        import ctypes

        ctypes.string_at(1)

    workers = [FX.StartWorkerProcess() | run for _ in range(4)]
    commands = [echo(0), echo(1), crash(), echo(3)]
    pairs = zip(workers, commands, strict=True)
    with ThreadPoolExecutor(4) as threads:
        sent = (FX.SendCommandToWorkerProcess(process=process, command=command) for process, command in pairs)
        outcomes = list(threads.map(run.outcome, sent))
    assert [outcomes[0], outcomes[1], outcomes[3]] == [0, 1, 3]
    assert isinstance(outcomes[2], WorkerCrash)
    for process in workers:
        stop(process)


def test_worker_outlives_the_thread_that_started_it():
    started = []
    thread = threading.Thread(target=lambda: started.append(FX.StartWorkerProcess() | run))
    thread.start()
    thread.join()
    assert send(started[0], echo("still here")) == "still here"
    stop(started[0])


def test_stop_from_another_thread_ends_a_running_command():
    reached = threading.Event()

    class Tell:
        def write(self, _text):
            reached.set()

        def flush(self):
            pass

    @zef_function
    def announced():
        FX.Print(content="running") | run
        while True:
            pass

    with assert_nothing_left(), ThreadPoolExecutor(1) as threads, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Tell())
        process = FX.StartWorkerProcess() | run
        future = threads.submit(send, process, announced())
        reached.wait()
        stop(process)
        with pytest.raises(WorkerCrash) as raised:
            future.result()
    assert raised.value.reason is Reason.STOPPED


def test_list_shows_living_workers_in_the_order_they_were_started():
    first, second = (FX.StartWorkerProcess(policy=policy) | run for policy in ("compute", "strict"))
    send(first, echo(1))
    shown = {entry["process"]: entry for entry in FX.ListWorkerProcesses() | run}
    assert [process for process in shown if process in (first, second)] == [first, second]
    assert (shown[first]["policy"], shown[first]["commands"], shown[first]["state"]) == ("compute", 1, "idle")
    assert os.path.exists(f"/proc/{shown[second]['pid']}")
    stop(first)
    stop(second)
    assert not {first, second} & {entry["process"] for entry in FX.ListWorkerProcesses() | run}


def test_stopping_twice_is_no_error(worker):
    stop(worker)
    stop(worker)


INTERRUPTED = """
import sys, psutil
from fxcell import *

@zef_function
def announced():
    FX.Print(content="running") | run
    while True:
        pass

worker = FX.StartWorkerProcess() | run
supervisor = (FX.ListWorkerProcesses() | run)[0]["pid"]
try:
    FX.SendCommandToWorkerProcess(process=worker, command=announced()) | run
except KeyboardInterrupt:
    print("interrupted", psutil.pid_exists(supervisor), len(FX.ListWorkerProcesses() | run))
another = FX.StartWorkerProcess() | run
print(FX.SendCommandToWorkerProcess(process=another, command=7) | run)
"""


def test_ctrl_c_in_the_caller_ends_the_command_and_leaves_nothing(tmp_path):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    with assert_nothing_left():
        host = subprocess.Popen([sys.executable, "-W", "error", script], stdout=subprocess.PIPE, text=True)
        assert host.stdout.readline() == "running\n"
        host.send_signal(signal.SIGINT)
        rest, _ = host.communicate(timeout=60)
    assert rest == "interrupted False 0\n7\n"
    assert host.returncode == 0


def test_killed_host_leaves_no_worker(tmp_path):
    """Its cgroups, which are empty then, go when the next host starts."""
    script = tmp_path / "killed.py"
    script.write_text(INTERRUPTED)
    before = leaks.snapshot()
    with assert_nothing_left():
        host = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
        assert host.stdout.readline() == "running\n"
        host.kill()
        host.communicate(timeout=60)
        before_sweep = leaks.snapshot()
        assert leaks.wait_until_gone(dataclasses.replace(before, cgroups=before_sweep.cgroups), 5) == []
        cgroups.sweep(cgroups.places(), older_than_s=0)
