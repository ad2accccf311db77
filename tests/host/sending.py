"""What tests of single workers share: a worker, how it gets commands and is stopped, and commands for it."""

import pytest

from fxcell import FX, run, zef_function


@pytest.fixture
def worker():
    process = FX.StartWorkerProcess() | run
    yield process
    FX.StopWorkerProcess(process=process) | run


def send(process, command, **options):
    return FX.SendCommandToWorkerProcess(process=process, command=command, **options) | run


def stop(process):
    FX.StopWorkerProcess(process=process) | run


@zef_function
def echo(value):
    return value


@zef_function
def busy():
    while True:
        pass
