"""A host for tests/host/test_audit_full_disk.py: keeps an audit log where the disk takes no more. Exit 0: all was as it must be.

Inputs:   arguments: which story (a name of STORIES), and a folder of its own; it must be a small file system for `full`.
Outputs:  nothing on stdout; what was not as it must be, on stderr.
"""

import contextlib
import os
import resource
import sys
import threading
from pathlib import Path

import pytest

from fxcell import FX, EffectDenied, run
from fxcell.host import audit, registry
from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.writer import Writer
from tests.host.audited import PRINT_ONLY, records, send


def limit_files(size):
    """Let no file of this process grow beyond a size: the disk that an ordinary user can fill. It hits every file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def denied_until_there_is_room(path):
    worker = FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log = audit.to_file(path)
    send(worker, FX.Print(content="before"))
    wait_for_lines(path, 3)
    limit_files(path.stat().st_size + 100)
    denied = send(worker, FX.Print(content="meanwhile"))
    assert isinstance(denied, EffectDenied), denied
    assert "File too large" in denied.rule
    assert registry.session_of(worker).broker.performed == 0  # what the evidence of a crash would say
    assert audit.verify([str(path)]).whole  # no half line
    limit_files(resource.RLIM_INFINITY)
    assert send(worker, FX.Print(content="after")) is None
    log.close()
    FX.StopWorkerProcess(process=worker) | run
    found = [(r["decision"], r["number"]) for r in records(path) if r["event"] == "effect"]
    assert found == [("granted", 1), ("done", 1), ("denied", 2), ("granted", 3), ("done", 3)], found
    assert audit.verify([str(path)]).whole


def dropped_and_counted(path):
    worker = FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log = audit.to_file(path, when_full="drop")
    limit_files(path.stat().st_size)
    for _ in range(3):
        assert send(worker, FX.Print(content="unrecorded")) is None
    with pytest.raises(audit.AuditError, match=r"6 records of .* are lost: File too large"):
        log.close()
    limit_files(resource.RLIM_INFINITY)
    FX.StopWorkerProcess(process=worker) | run
    assert audit.verify([str(path)]).whole


def lost_line_counts_them(path):
    writer = Writer(AuditFile(str(path), 2**26, 1, None), drop=True)
    limit_files(path.stat().st_size)
    writer.put({"event": "gone"})
    while not writer._lost:
        threading.Event().wait(0.001)
    limit_files(resource.RLIM_INFINITY)
    writer.put({"event": "kept"})
    writer.close()
    assert [(r["event"], r.get("count")) for r in records(path)][1:] == [("lost", 1), ("kept", None)]
    assert audit.verify([str(path)]).lost == 1


def verified_while_writes_fail(path):
    """A line that the disk did not take is in the file for a moment, until it is taken back."""
    sys.setswitchinterval(1e-6)
    writer = Writer(AuditFile(str(path), 2**26, 1, None), drop=True)
    limit_files(path.stat().st_size + 100)
    found = []
    for _ in range(1000):
        writer.put({"event": "gone"})
        found.append(audit.verify([str(path)]).why)
    limit_files(resource.RLIM_INFINITY)
    with contextlib.suppress(audit.AuditError):
        writer.close()
    assert set(found) == {None}, set(found)


def full(path):
    worker = FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log, filler = audit.to_file(path), path.with_name("filler")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    outcomes = [send(worker, FX.Print(content="x" * 150)) for _ in range(40)]
    denied = [outcome for outcome in outcomes if isinstance(outcome, EffectDenied)]
    assert denied, outcomes
    assert "No space left" in denied[-1].rule
    assert audit.verify([str(path)]).whole
    filler.unlink()
    assert send(worker, FX.Print(content="again")) is None
    log.close()
    assert audit.verify([str(path)]).whole


def wait_for_lines(path, count):
    """Until the log's thread has written so many: what nobody waits for is queued."""
    while len(path.read_bytes().splitlines()) < count:
        threading.Event().wait(0.001)


STORIES = {
    story.__name__: story
    for story in (denied_until_there_is_room, dropped_and_counted, lost_line_counts_them, verified_while_writes_fail, full)
}

if __name__ == "__main__":
    os.dup2(2, 1)  # what plugins print
    STORIES[sys.argv[1]](Path(sys.argv[2]) / "log")
