"""The audit log when the disk takes no more: effects are denied, or performed and counted as missing, and the log stays whole."""

import resource
import subprocess
import sys
import threading

import pytest

from fxcell import FX, EffectDenied, run
from fxcell.host import audit, registry
from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.writer import Writer
from tests.host.audited import PRINT_ONLY, records, send


@pytest.fixture
def file_limit():
    """Lets no file of this process grow beyond a size: the disk that an ordinary user can fill."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_denies_effects_and_they_are_granted_again_when_there_is_room(tmp_path, file_limit):
    path, worker = tmp_path / "log", FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log = audit.to_file(path)
    send(worker, FX.Print(content="before"))
    file_limit(path.stat().st_size + 100)
    denied = send(worker, FX.Print(content="meanwhile"))
    assert isinstance(denied, EffectDenied)
    assert "File too large" in denied.rule
    assert registry.session_of(worker).broker.performed == 0  # what the evidence of a crash would say
    assert audit.verify([str(path)]).whole  # no half line
    file_limit(resource.RLIM_INFINITY)
    assert send(worker, FX.Print(content="after")) is None
    log.close()
    FX.StopWorkerProcess(process=worker) | run
    found = [(r["decision"], r["number"]) for r in records(path) if r["event"] == "effect"]
    assert found == [("granted", 1), ("done", 1), ("denied", 2), ("granted", 3), ("done", 3)]
    assert audit.verify([str(path)]).whole


def test_full_disk_with_drop_performs_and_counts_what_is_missing(tmp_path, file_limit):
    path, worker = tmp_path / "log", FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log = audit.to_file(path, when_full="drop")
    file_limit(path.stat().st_size)
    for _ in range(3):
        assert send(worker, FX.Print(content="unrecorded")) is None
    with pytest.raises(audit.AuditError, match=r"6 records of .* are lost: File too large"):
        log.close()
    file_limit(resource.RLIM_INFINITY)
    FX.StopWorkerProcess(process=worker) | run
    assert audit.verify([str(path)]).whole


def test_lost_line_says_how_many_are_missing(tmp_path, file_limit):
    path = tmp_path / "log"
    writer = Writer(AuditFile(str(path), 2**26, 1, None), drop=True)
    file_limit(path.stat().st_size)
    writer.put({"event": "gone"})
    while not writer._lost:
        threading.Event().wait(0.001)
    file_limit(resource.RLIM_INFINITY)
    writer.put({"event": "kept"})
    writer.close()
    assert [(r["event"], r.get("count")) for r in records(path)][1:] == [("lost", 1), ("kept", None)]
    assert audit.verify([str(path)]).lost == 1


FULL = """
import os, sys
from fxcell import *
from fxcell.host import audit
path = sys.argv[1] + "/log"
worker = FX.StartWorkerProcess() | run
log = audit.to_file(path)
with open(sys.argv[1] + "/filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
outcomes = [run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content="x" * 150))) for _ in range(40)]
denied = [o for o in outcomes if isinstance(o, EffectDenied)]
assert denied and "No space left" in denied[-1].rule, outcomes
assert audit.verify([path]).whole
os.unlink(sys.argv[1] + "/filler")
assert run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content="again"))) is None
log.close()
assert audit.verify([path]).whole
"""


@pytest.mark.needs_root
def test_full_file_system_denies_effects_until_there_is_room(tmp_path):
    script = f'mount -t tmpfs -o size=64k fxcell-full {tmp_path} && exec "{sys.executable}" -c "$0" {tmp_path}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, FULL], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-800:]
