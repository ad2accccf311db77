"""WorkerCrash as data: JSON and back, one line for people, one key per kind of crash."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from fxcell.policies.crash import DeniedSyscall, Evidence, Reason, ResourceUse, WorkerCrash, signal_name

SYSCALL = DeniedSyscall("ptrace", 101, (16, 4242, 2**64 - 1, 0, 0, 0), "0xc000003e")
STACK = 'Current thread 0x7f01 (most recent call first):\n  File "/a/b/plugin.py", line 3 in decode\n  File "<x>", line 9 in run\n'
FULL = Evidence(
    worker="w1", signal=31, exit_code=None, syscall=SYSCALL, python_stack=STACK,
    resources=ResourceUse(0.25, 0.125, 1.5, 4096), stdout_tail="out", stderr_tail="err\n\x1b[31m", last_effect="Print",
    open_effect="HTTPRequest", effects_performed=3, command="c0", plugin="p0", policy="d0",
    layers=("seccomp", "landlock"), reproducer="/x/y.repro",
)  # fmt: skip

CRASHES = [WorkerCrash(reason, f"because of {reason}", FULL) for reason in Reason] + [
    WorkerCrash(Reason.EXITED, "", Evidence())
]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: f"{crash.reason}-{crash.evidence.worker or 'bare'}")
def test_crash_survives_json_and_pickle(crash):
    data = crash.to_dict()
    text = json.dumps(data, allow_nan=False)
    for again in (WorkerCrash.from_dict(json.loads(text)), pickle.loads(pickle.dumps(crash))):
        assert (again.reason, again.detail, again.evidence) == (crash.reason, crash.detail, crash.evidence)
        assert again.to_dict() == data
        assert str(again) == str(crash)


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: f"{crash.reason}-{crash.evidence.worker or 'bare'}")
def test_text_is_one_line(crash):
    assert str(crash).splitlines() == [str(crash)]


def test_keys_of_the_data_are_these():
    data = CRASHES[0].to_dict()
    assert set(data) == {"outcome", "reason", "detail", "message", "signal_name", "dedup_key", "evidence"}
    assert set(data["evidence"]) == {field.name for field in dataclasses.fields(Evidence)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"evidence": None}, {"evidence": {}}, {"reason": "tired"}, {"evidence": {"syscall": {}, "resources": {}}}],
    ids=str,
)
def test_data_of_another_shape_is_an_error(changes):
    data = CRASHES[0].to_dict() | changes if changes else {}
    with pytest.raises((KeyError, TypeError, ValueError)):
        WorkerCrash.from_dict(data)


def changed(reason: Reason = Reason.SIGNAL, **fields) -> str:
    return WorkerCrash(reason, "x", dataclasses.replace(FULL, **fields)).dedup_key


@pytest.mark.parametrize(
    "fields",
    [
        {"worker": "w2"},
        {"resources": ResourceUse(9.0, 9.0, 9.0, 9)},
        {"command": "c1"},
        {"stdout_tail": "other"},
        {"syscall": dataclasses.replace(SYSCALL, arguments=(1, 2, 3, 4, 5, 6))},
        {"python_stack": STACK.replace("line 3", "line 33").replace("/a/b", "/tmp/c").replace("0x7f01", "0x8f02")},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_dedup_key_ignores_what_differs_between_runs(fields):
    assert changed(**fields) == changed()


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": Reason.EXITED},
        {"signal": 11},
        {"syscall": dataclasses.replace(SYSCALL, name="bpf")},
        {"python_stack": STACK.replace("decode", "encode")},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_dedup_key_differs_for_another_crash(fields):
    assert changed(**fields) != changed()


def test_denied_syscall_reads_as_a_call():
    assert str(SYSCALL) == "ptrace(0x10, 0x1092, 0xffffffffffffffff, 0x0, 0x0, 0x0)"


def test_signal_names():
    assert (signal_name(11), signal_name(35)) == ("SIGSEGV", "signal 35")
