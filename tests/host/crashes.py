"""What tests of crashes share: the WorkerCrash of a command that ends its worker, well-formed and with nothing left."""

import json

import pytest

from fxcell import FX, WorkerCrash, WorkerStopped, run, zef_function
from tests.leaks import assert_nothing_left


def crash_of(command, policy="compute", **options):
    """Send a command that ends its worker; the WorkerCrash, with nothing left."""
    # The template process lives on between workers: have it before anything is counted.
    FX.StopWorkerProcess(process=FX.StartWorkerProcess(policy=policy) | run) | run
    with assert_nothing_left():
        started = FX.StartWorkerProcess(policy=policy) | run
        with pytest.raises(WorkerCrash) as raised:
            FX.SendCommandToWorkerProcess(process=started, command=command, **options) | run
        with pytest.raises(WorkerStopped):
            FX.SendCommandToWorkerProcess(process=started, command=1) | run
        FX.StopWorkerProcess(process=started) | run
    return well_formed(raised.value)


def well_formed(crash):
    assert "\n" not in str(crash)
    assert str(crash).startswith(f"{crash.reason.value}: ")
    stored = json.loads(json.dumps(crash.to_dict(), allow_nan=False))
    assert WorkerCrash.from_dict(stored).to_dict() == stored
    assert stored["reason"] == crash.reason.value
    assert len(crash.dedup_key) == 12
    return crash


@zef_function
def raise_signal(number):
    import os

    os.kill(os.getpid(), number)
