"""What tests of a host under attack share: a worker, and the outcomes of its commands as values."""

import pytest

from fxcell import FX, run, zef_function


@pytest.fixture
def worker():
    process = FX.StartWorkerProcess() | run
    yield process
    FX.StopWorkerProcess(process=process) | run


def send(worker, command, **options):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, **options))


@zef_function
def answer(value):
    return value
