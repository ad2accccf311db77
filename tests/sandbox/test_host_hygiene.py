"""Workers and the process they belong to: they die with it, and nothing it does with threads or forks harms them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from fxcell import FX, Reason, WorkerCrash, load_policy, run, zef_function
from fxcell.host import cgroups, templates
from tests import leaks
from tests.dead_hosts import groups_of, sweep_until_gone


@zef_function
def add(a, b):
    return a + b


@zef_function
def sleep(seconds):
    import time

    time.sleep(seconds)


def send(worker, command, **options):
    return FX.SendCommandToWorkerProcess(process=worker, command=command, **options) | run


def new_worker(policy="compute"):
    return FX.StartWorkerProcess(policy=policy) | run


def stop(worker):
    FX.StopWorkerProcess(process=worker) | run


def pid_of(worker):
    return next(entry["pid"] for entry in FX.ListWorkerProcesses() | run if entry["process"] == worker)


HOST = """
    import sys
    from fxcell import *
    @zef_function
    def spin():
        while True: pass
    @zef_function
    def add(a, b): return a + b
    workers = [FX.StartWorkerProcess(policy=p) | run for p in ("compute", "compute", "trusted")]
    for w in workers: FX.SendCommandToWorkerProcess(process=w, command=add(1, 2)) | run
    if sys.argv[1] == "busy": run.submit(FX.SendCommandToWorkerProcess(process=workers[0], command=spin()))
    print("ready", flush=True)
    sys.stdin.readline()
    print([FX.SendCommandToWorkerProcess(process=w, command=add(1, 2)) | run for w in workers[1:]], flush=True)
    FX.StopWorkerProcess(process=workers[0]) | run
"""


@contextlib.contextmanager
def another_host(state="busy"):
    """A host in a process of its own, with three workers, one of them busy."""
    host = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOST), state], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert host.stdout.readline() == "ready\n"
        yield host
    finally:
        host.kill()
        host.wait()
        host.stdin.close()
        host.stdout.close()
        cgroups.sweep(cgroups.places(), older_than_s=0)  # a killed host cannot take its groups away


def family_of(pid):
    return {(process.pid, process.create_time()) for process in psutil.Process(pid).children(recursive=True)}


def alive(family):
    left = set()
    for pid, created in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                left.add((pid, created))
    return left


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_no_worker_lives_a_second_after_its_host_was_killed(number):
    with another_host() as host:
        family = family_of(host.pid)
        assert len(family) >= 2 + 2 * 3  # two templates, and for each worker a supervisor and itself
        host.send_signal(number)
        host.wait()
        end = time.monotonic() + 1.0
        while alive(family) and time.monotonic() < end:
            time.sleep(0.005)
        assert alive(family) == set()


def test_cgroups_of_a_killed_host_are_taken_away_by_a_later_one():
    if not cgroups.places():
        pytest.skip("this user cannot make cgroups here")
    with another_host() as host:
        host.kill()
        host.wait()
        left = groups_of(host.pid)
        assert left
        cgroups.sweep(cgroups.places())  # too young: a host of another pid namespace could own them
        assert groups_of(host.pid) == left
        assert sweep_until_gone(lambda: groups_of(host.pid), patience_s=2) == []
    worker = new_worker()
    cgroups.sweep(cgroups.places(), older_than_s=0)  # not this one's
    assert send(worker, add(1, 2)) == 3
    stop(worker)


def test_two_hosts_do_not_disturb_each_other():
    worker = new_worker()
    with another_host() as first, another_host() as second:
        first.kill()
        assert send(worker, add(1, 2)) == 3
        second.stdin.write("\n")
        second.stdin.flush()
        assert second.stdout.readline() == "[3, 3]\n"
        second.wait(20)
        assert second.returncode == 0
    assert send(worker, add(2, 2)) == 4
    stop(worker)


def test_worker_outlives_the_thread_that_started_it():
    started = []
    policy = load_policy("compute").replaced(
        name="from a thread", description="so that its template is started there too", preload=("json",)
    )
    thread = threading.Thread(target=lambda: started.append(new_worker(policy)))
    thread.start()
    thread.join()
    del thread
    (worker,) = started
    for _ in range(3):
        assert send(worker, add(1, 2)) == 3
    stop(worker)


def test_workers_start_and_answer_while_many_threads_start_others():
    results, errors = [], []

    def work(number):
        try:
            worker = new_worker(("compute", "strict", "trusted")[number % 3])
            results.append(send(worker, add(number, 1)))
            stop(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(results) == list(range(1, 13))


def test_workers_start_under_a_running_asyncio_loop_with_threads():
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        blocked = asyncio.create_task(asyncio.to_thread(threading.Event().wait, 0.2))
        worker = await run.aio(FX.StartWorkerProcess(policy="compute"))
        answers = await asyncio.gather(
            *(run.aio(FX.SendCommandToWorkerProcess(process=worker, command=add(n, 1))) for n in range(5))
        )
        await run.aio(FX.StopWorkerProcess(process=worker))
        ticking.cancel()
        await blocked
        return answers, ticks

    answers, ticks = asyncio.run(main())
    assert answers == [1, 2, 3, 4, 5]
    assert ticks > 1


def test_fork_of_the_host_leaves_the_workers_to_the_parent():
    worker = new_worker()
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                send(worker, add(1, 1))
            except Exception as error:
                code = 0 if type(error).__name__ == "WorkerStopped" else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert send(worker, add(1, 2)) == 3
    stop(worker)


def test_template_killed_from_outside_is_a_crash_and_the_next_start_works():
    policy = load_policy("compute").replaced(name="killed template", description="alone", preload=("csv",))
    worker = new_worker(policy)
    template = templates._templates[policy.digest]
    os.kill(template.process.pid, signal.SIGKILL)
    template.process.wait()
    crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=sleep(5), deadline_s=10))
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason in (Reason.KILLED_EXTERNALLY, Reason.CONNECTION_LOST), crash
    again = new_worker(policy)
    assert send(again, add(1, 2)) == 3
    stop(again)


@pytest.mark.parametrize("whom", ["supervisor", "worker"])
def test_worker_or_supervisor_killed_from_outside_is_named_so(whom):
    worker = new_worker()
    supervisor = psutil.Process(pid_of(worker))
    victim = supervisor if whom == "supervisor" else supervisor.children()[0]
    answer = run.submit(FX.SendCommandToWorkerProcess(process=worker, command=sleep(30), deadline_s=20))
    wait_until_busy(worker)
    try:
        victim.kill()
    except psutil.AccessDenied:
        pytest.skip("this user may not signal the worker")
    crash = answer.exception(timeout=20)
    assert isinstance(crash, WorkerCrash)
    assert crash.reason is Reason.KILLED_EXTERNALLY, crash


def wait_until_busy(worker):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if any(entry["process"] == worker and entry["state"] == "busy" for entry in FX.ListWorkerProcesses() | run):
            return
    raise AssertionError("the worker was never busy")


@pytest.mark.parametrize("whom", ["supervisor", "worker"])
def test_worker_or_supervisor_stopped_from_outside_ends_at_the_deadline(whom):
    with leaks.assert_nothing_left():
        worker = new_worker()
        supervisor = psutil.Process(pid_of(worker))
        victim = supervisor if whom == "supervisor" else supervisor.children()[0]
        try:
            victim.suspend()
        except psutil.AccessDenied:
            pytest.skip("this user may not signal the worker")
        crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=sleep(30), deadline_s=0.3))
        assert isinstance(crash, WorkerCrash)
        assert crash.reason is Reason.DEADLINE, crash


def test_stopping_a_busy_worker_tells_the_one_who_waits():
    worker = new_worker()
    answer = run.submit(FX.SendCommandToWorkerProcess(process=worker, command=sleep(30)))
    wait_until_busy(worker)
    started = time.monotonic()
    stop(worker)
    crash = answer.exception(timeout=10)
    assert isinstance(crash, WorkerCrash)
    assert crash.reason is Reason.STOPPED
    assert time.monotonic() - started < 5


def test_interrupted_host_stops_its_workers_and_leaves_nothing():
    # With a submitted command still running, Python waits for its thread before anything else: see run.submit.
    with another_host("idle") as host:
        family = family_of(host.pid)
        host.send_signal(signal.SIGINT)
        host.wait(20)
        end = time.monotonic() + 1
        while alive(family) and time.monotonic() < end:
            time.sleep(0.005)
        assert alive(family) == set()
