"""How many system calls reach the kernel: at most 64 in a strict worker, at most 96 in a compute worker.

Counted three times: on every path of the compiled program, by the kernel under that program, and in real workers.
"""

from __future__ import annotations

import errno
import platform
from concurrent.futures import ThreadPoolExecutor

import pytest

from fxcell import FX, Reason, WorkerCrash, load_policy, run, zef_function
from fxcell.sandbox import filter as filters
from fxcell.sandbox import syscalls
from tests.sandbox import bpf, kernel_answers

MOST = {"strict": 64, "compute": 96}
NUMBERS = (*range(512), *range(512, 640), 1000, 2**20, 2**30 - 1)
HERE = bpf.ARCHITECTURES.get(platform.machine(), 0)
ONES = 2**64 - 1
# Argument values that some row of the table, or some attack, cares about.
WORDS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, ONES, ONES - 1, 0x80, 0x5421, 0x5412, 0x10000, 0x10100, 0x3D0F00, 0x1200011, 0x10000000,
    1030, 1033, 1034, 0x80801, 0x800, 0xFFFFFFFF, 1 << 32, 1 << 32 | 1, 1 << 32 | 0x5412, 3 << 32 | 3,
)  # fmt: skip
NOT_TRIED = {
    "exit": "ends the thread that counts",
    "exit_group": "ends the process that counts",
    "rt_sigreturn": "takes registers from a stack that holds none",
}
"""Calls that are allowed and would end a worker that makes them: left to the first two counts."""

PAST_EVERY_FILTER = {335: "uretprobe", 336: "uprobe"}
"""On x86-64 newer kernels (measured: 6.18) answer these two before any filter is asked, with SIGILL and ENXIO unless the
call comes from the kernel's own uprobe trampoline; see seccomp_is_const_allow in kernel/seccomp.c. Counted as reaching it."""


def program(name):
    return filters.for_process(filters.compile_filter(load_policy(name).allow), 2)


def vectors():
    """Every word in every one of the first five arguments, the others 0 or all ones, and pairs for domain and type."""
    found = {(0,) * 5, (ONES,) * 5}
    for place in range(5):
        for word in WORDS:
            for rest in (0, ONES):
                found.add(tuple(word if index == place else rest for index in range(5)))
    found |= {(1, kind, 0, 0, 0) for kind in (1, 2, 5, 0x80801, 0x80802)}
    return sorted(found)


def allowed_on_some_path(name):
    filtered = {number for number in NUMBERS if bpf.ALLOW in bpf.reachable(program(name), number, HERE)}
    assert not filtered & PAST_EVERY_FILTER.keys()
    return filtered


@pytest.mark.parametrize("name", MOST)
def test_number_of_calls_that_reach_the_kernel(name):
    reaching = allowed_on_some_path(name)
    unasked = len(PAST_EVERY_FILTER) if platform.machine() == "x86_64" else 0
    print(
        f"\n{name}: {len(reaching)} and {unasked} unfiltered of {len(NUMBERS)} numbers reach the kernel, {MOST[name]} may"
    )
    assert 30 < len(reaching) <= MOST[name] - unasked
    table = {row.name for row in syscalls.allowed(load_policy(name).allow)}
    assert {filters.syscall_name(number) for number in reaching} <= table


@pytest.mark.parametrize("name", MOST)
def test_the_kernel_decides_each_number_and_argument_as_the_interpreter(name):
    calls = [
        (number, *vector) for number in NUMBERS if number not in PAST_EVERY_FILTER for vector in ((0,) * 5, (ONES,) * 5)
    ]
    conditional = {row.name for row in syscalls.allowed(load_policy(name).allow) if row.when}
    for number in NUMBERS:
        if filters.syscall_name(number) in conditional | {"clone3", "socket", "mmap", "ioctl", "prctl"}:
            calls += [(number, *vector) for vector in vectors()]
    expected = [
        bpf.words(bpf.run(program(name), bpf.Call(number, HERE, (*arguments, 0x5EED)))) for number, *arguments in calls
    ]
    answers = kernel_answers.ask(program(name), calls)
    wrong = [
        (call, answer, wanted)
        for call, answer, wanted in zip(calls, answers, expected, strict=True)
        if answer != wanted
    ]
    assert wrong == []
    reached = {call[0] for call, answer in zip(calls, answers, strict=True) if answer == "allow"}
    print(f"\n{name}: {len(reached)} numbers reached the kernel in {len(calls)} trials")
    assert reached == allowed_on_some_path(name)


@zef_function
def try_each(numbers):
    """errno of each call with all registers -1, which no call can do anything with; 0 where it had a result."""
    import ctypes

    raw = ctypes.CDLL(None, use_errno=True).syscall
    raw.restype = ctypes.c_long
    raw.argtypes = [ctypes.c_long] * 7
    answers = []
    for number in numbers:
        ctypes.set_errno(0)
        result = raw(number, -1, -1, -1, -1, -1, -1)
        answers.append(ctypes.get_errno() if result == -1 else 0)
    return answers


def decided_for_ones(name):
    """number -> what the supervisor and the filter together answer when every register is -1."""
    words = load_policy(name).allow
    answers = filters.errno_answers(words)
    decided = {}
    for number in NUMBERS:
        answer = bpf.run(program(name), bpf.Call(number, HERE, (ONES,) * 6))
        if answer & bpf.ACTION == bpf.NOTIFY:
            decided[number] = f"errno {answers[number]}" if number in answers else "ends"
        else:
            decided[number] = bpf.words(answer)
    return decided


@pytest.mark.slow
@pytest.mark.parametrize("name", MOST)
def test_real_workers_answer_or_end_as_the_filter_says(name):
    policy = load_policy(name).replaced(name=f"{name} with ctypes", preload=("ctypes",))
    assert policy.allow == load_policy(name).allow
    decided = decided_for_ones(name)
    survive = [n for n, answer in decided.items() if answer != "ends" and filters.syscall_name(n) not in NOT_TRIED]
    worker = FX.StartWorkerProcess(policy=policy) | run
    answers = FX.SendCommandToWorkerProcess(process=worker, command=try_each(survive)) | run
    FX.StopWorkerProcess(process=worker) | run
    refused = {n: a for n, a in zip(survive, answers, strict=True) if decided[n].startswith("errno")}
    assert {n: f"errno {a}" for n, a in refused.items()} == {n: decided[n] for n in refused}
    reached = {n: a for n, a in zip(survive, answers, strict=True) if decided[n] == "allow"}
    # A call that this kernel does not have cannot be told from one that was refused; those in the table all exist,
    # and futex answers ENOSYS to an operation that it does not know.
    assert {filters.syscall_name(n) for n, a in reached.items() if a == errno.ENOSYS} <= {"futex"}
    ends = [n for n, answer in decided.items() if answer == "ends" and n not in PAST_EVERY_FILTER]
    for number in PAST_EVERY_FILTER:
        outcome = outcome_of(policy, number)
        assert outcome == [errno.ENXIO] or outcome.reason in (Reason.SIGNAL, Reason.DENIED_SYSCALL)
    with ThreadPoolExecutor(4) as threads:
        crashes = list(threads.map(lambda number: outcome_of(policy, number), ends))
    for number, crash in zip(ends, crashes, strict=True):
        assert isinstance(crash, WorkerCrash), (number, filters.syscall_name(number), crash)
        assert crash.evidence.syscall is not None, (number, crash)
        assert (crash.reason, crash.evidence.syscall.number) == (Reason.DENIED_SYSCALL, number)
        assert crash.evidence.syscall.name == filters.syscall_name(number)
        assert crash.evidence.syscall.arguments == (ONES,) * 6
    print(f"\n{name}: {len(reached)} reached the kernel, {len(refused)} were refused, {len(ends)} ended the worker")
    assert len(survive) + len(ends) + len(NOT_TRIED) + len(PAST_EVERY_FILTER) == len(NUMBERS)


def outcome_of(policy, number):
    """What becomes of a new worker that makes this call."""
    worker = FX.StartWorkerProcess(policy=policy) | run
    outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=try_each([number])))
    FX.StopWorkerProcess(process=worker) | run
    return outcome
