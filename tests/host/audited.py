"""What tests of the audit log share: a policy, commands to a worker, and log files written and read."""

import json

from fxcell import FX, Policy, run
from fxcell.host.audit.file import AuditFile

PRINT_ONLY = Policy(name="print-only", effects={"Print": True})


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def written(path, count, **options):
    options = {"rotate_bytes": 2**26, "keep": 100, "key": None} | options
    file = AuditFile(str(path), **options)
    for number in range(count):
        assert file.append([{"event": "test", "number": number}]) == (1, None)
    file.close()
    return file


def send(worker, command):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))
