"""The Enforced report: a real one is accepted, each tampered one is refused by the layer that is missing."""

from __future__ import annotations

import msgspec
import pytest

from fxcell import FX, IsolationUnavailable, WorkerCrash, load_policy, run
from fxcell.policies.errors import InternalError
from fxcell.sandbox import enforced
from tests import leaks


@pytest.fixture(scope="module")
def real():
    """(plan, limits, report, keyword arguments) of a worker that was really started."""
    seen = []

    def note(plan, limits, data, **options):
        seen.append((plan, limits, msgspec.msgpack.decode(data), options))
        return check(plan, limits, data, **options)

    check, enforced.check = enforced.check, note
    try:
        worker = FX.StartWorkerProcess(policy="compute") | run
    finally:
        enforced.check = check
    FX.StopWorkerProcess(process=worker) | run
    return seen[0]


def judge(real, change):
    plan, limits, report, options = real
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(report))
    changed = change(copy)
    data = changed if isinstance(changed, bytes) else msgspec.msgpack.encode(copy)
    return enforced.check(plan, limits, data, **options)


def put(layer, key, value):
    return lambda report: report[layer].__setitem__(key, value)


def test_real_report_is_accepted_and_names_every_layer(real):
    assert judge(real, lambda report: None) == real[0].layers


@pytest.mark.parametrize(
    "layer", ["namespaces", "minimal_root", "limits", "privileges", "landlock", "seccomp", "hygiene"]
)
def test_report_without_a_layer_is_refused(real, layer):
    with pytest.raises(IsolationUnavailable, match=layer):
        judge(real, lambda report: report.pop(layer) and None)


def test_report_with_a_layer_that_was_not_planned_is_refused(real):
    with pytest.raises(IsolationUnavailable, match="magic"):
        judge(real, lambda report: report.update(magic={}))


TAMPERED = {
    "one descriptor more": ("hygiene", put("hygiene", "descriptors", [0, 1, 2, 3, 4, 5])),
    "one descriptor less": ("hygiene", put("hygiene", "descriptors", [0, 1, 2, 3])),
    "core files": ("limits", put("limits", "core_bytes", 1)),
    "core files without limit": ("limits", put("limits", "core_bytes", -1)),
    "memory without limit": ("limits", put("limits", "data_bytes", -1)),
    "more memory": ("limits", put("limits", "data_bytes", 2**50)),
    "more open files": ("limits", put("limits", "open_files", 2**20)),
    "open files without limit": ("limits", put("limits", "open_files", -1)),
    "larger files": ("limits", put("limits", "file_bytes", 2**50)),
    "not process 2": ("namespaces", put("namespaces", "pid_inside", 1234)),
    "proc visible": ("minimal_root", put("minimal_root", "proc_visible", True)),
    "writable root": ("minimal_root", put("minimal_root", "root_writable", True)),
    "a capability": ("privileges", put("privileges", "capabilities", 1)),
    "new privileges": ("privileges", put("privileges", "no_new_privs", False)),
    "dumpable": ("privileges", put("privileges", "dumpable", True)),
    "saved user root": ("privileges", put("privileges", "ids", [65534, 65534, 0, 65534, 65534, 65534])),
    "no Landlock": ("landlock", put("landlock", "listing_root", "")),
    "another refusal than Landlock's": ("landlock", put("landlock", "listing_root", "ENOENT")),
    "sockets": ("seccomp", put("seccomp", "socket", "")),
    "sockets refused by something else": ("seccomp", put("seccomp", "socket", "EACCES")),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_report_is_refused_by_its_layer(real, name):
    layer, change = TAMPERED[name]
    with pytest.raises(IsolationUnavailable) as refusal:
        judge(real, lambda report: change(report) and None)
    assert refusal.value.layer == layer


@pytest.mark.parametrize("space", ["user", "mount", "net", "ipc", "uts", "cgroup"])
def test_namespace_of_the_host_is_refused(real, space):
    for inode in (real[3]["outside"][space], None):
        with pytest.raises(IsolationUnavailable) as refusal:
            judge(real, lambda report, inode=inode: report["namespaces"].update({space: inode}))
        assert refusal.value.layer == "namespaces"
        assert space in refusal.value.cause


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x80\x80", b"\x93\x01\x02\x03", b"\x81\x01\x80", b"\x81\xa4seco\x01"],
    ids=lambda data: data.hex() or "empty",
)
def test_report_that_is_none_is_our_own_bug(real, data):
    with pytest.raises(InternalError, match="malformed"):
        judge(real, lambda report: data)


def test_worker_whose_report_is_refused_is_not_handed_out_and_leaves_nothing(monkeypatch):
    worker = FX.StartWorkerProcess(policy="compute") | run  # its template is there
    FX.StopWorkerProcess(process=worker) | run

    def refuse(*_, **__):
        raise IsolationUnavailable("landlock", "test", "test")

    with leaks.assert_nothing_left():
        before = FX.ListWorkerProcesses() | run
        monkeypatch.setattr(enforced, "check", refuse)
        for _ in range(3):
            with pytest.raises(IsolationUnavailable, match="landlock"):
                FX.StartWorkerProcess(policy="compute") | run
        assert FX.ListWorkerProcesses() | run == before
        monkeypatch.undo()
        worker = FX.StartWorkerProcess(policy="compute") | run
        FX.StopWorkerProcess(process=worker) | run


def test_layers_are_in_the_evidence_of_a_crash():
    from fxcell import zef_function

    @zef_function
    def leave():
        import os

        os._exit(3)

    for policy, layers in (("compute", 7), ("trusted", 2)):
        worker = FX.StartWorkerProcess(policy=load_policy(policy)) | run
        crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=leave()))
        assert isinstance(crash, WorkerCrash)
        assert len(crash.evidence.layers) == layers
