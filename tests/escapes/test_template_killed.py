"""Line 10: what workers come from is killed ten times in a row; every time the next start works."""

import signal
import time

from fxcell import FX, Reason, WorkerCrash, run
from fxcell.host import templates
from tests.escapes.conftest import add, compute


def test_ten_kills_of_the_template_cost_its_workers_only(arena):
    policy = compute(name="killed ten times", limits={"wall_s": 57})
    for _ in range(10):
        worker = FX.StartWorkerProcess(policy=policy) | run
        assert FX.SendCommandToWorkerProcess(process=worker, command=add(1, 1)) | run == 2
        template = templates.template_for(policy)
        template.process.send_signal(signal.SIGKILL)
        template.process.wait()
        # The kernel ends the supervisor with its parent, and with it the worker: at once, but not before this host goes on.
        outcome, until = 2, time.monotonic() + 5
        while outcome == 2 and time.monotonic() < until:
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=add(1, 1)))
        assert isinstance(outcome, WorkerCrash), outcome
        assert outcome.reason is Reason.KILLED_EXTERNALLY
        assert FX.SendCommandToWorkerProcess(process=arena.neighbour, command=add(2, 2)) | run == 4
