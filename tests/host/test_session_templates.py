"""Workers and the template processes they come from: a late one is given to nobody, and unused templates do not pile up."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from fxcell import FX, Limits, WorkerCrash, load_policy, run
from fxcell.host import registry, templates


def test_worker_that_came_after_its_start_deadline_is_not_given_to_the_next_caller():
    policy = load_policy("compute").replaced(limits=Limits(start_s=1.0))
    FX.StopWorkerProcess(process=FX.StartWorkerProcess(policy=policy) | run) | run
    template = templates.template_for(policy)
    before = len(psutil.Process(template.process.pid).children())
    os.kill(template.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerCrash, match="did not answer in time"):
        FX.StartWorkerProcess(policy=policy) | run
    os.kill(template.process.pid, signal.SIGCONT)
    workers = [FX.StartWorkerProcess(policy=policy) | run for _ in range(3)]
    for number, worker in enumerate(workers):
        assert FX.SendCommandToWorkerProcess(process=worker, command=number) | run == number
    assert {session.pid for session in map(registry.session_of, workers)} <= {
        child.pid for child in psutil.Process(template.process.pid).children()
    }
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run
    end = time.monotonic() + 20
    while len(psutil.Process(template.process.pid).children()) > before and time.monotonic() < end:
        os.sched_yield()
    assert len(psutil.Process(template.process.pid).children()) <= before


def test_policies_made_at_run_time_leave_a_bounded_number_of_templates_and_busy_ones_stay():
    def policy(number):
        return load_policy("strict").replaced(limits=Limits(wall_s=100 + number))

    busy = FX.StartWorkerProcess(policy=policy(0)) | run
    kept = templates.template_for(policy(0)).process.pid

    def use(number):
        worker = FX.StartWorkerProcess(policy=policy(1 + number % 20)) | run
        answer = FX.SendCommandToWorkerProcess(process=worker, command=number) | run
        FX.StopWorkerProcess(process=worker) | run
        return answer

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(60))) == list(range(60))
    assert sum(not template.users for template in templates._templates.values()) <= templates.IDLE_MAX
    assert templates.template_for(policy(0)).process.pid == kept
    assert FX.SendCommandToWorkerProcess(process=busy, command=1) | run == 1
    FX.StopWorkerProcess(process=busy) | run
