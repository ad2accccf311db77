"""What tests of a host under attack share: a worker, and the outcomes of its commands as values."""

from fxcell import FX, run, zef_function
from tests.host.sending import worker as worker  # noqa: PLC0414 - the fixture


def send(worker, command, **options):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, **options))


@zef_function
def answer(value):
    return value
