"""Rules nobody needs: every row of sandbox/syscalls.py is used by a worker, or is in KEPT with its reason.

recorded_programs.py runs harmless programs under every profile and with every word while strace records what the workers
call, after their lockdown, with the registers as the filter sees them.
"""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxcell.sandbox import syscalls

HERE = Path(__file__).parent
OWN_PID = 2
STRACE = ("strace", "-f", "-q", "-Y", "-e", "raw=all", "-e", "signal=none")
LINE = re.compile(r"(\d+)<([^>]*)> +(?:(\w+)\(([^)=]*)|<\.\.\. (\w+) resumed>|\+\+\+)")
NUMBER = re.compile(r"0x[0-9a-f]+|-?\d+")

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.compatibility import recorded_programs
sys.exit(recorded_programs.main(sys.argv[2]))
"""
"""Imported, not run as __main__: then what the programs import from tests/ travels to workers by value too."""

KEPT = {
    "restart_syscall": "the kernel makes it itself, when a process that was stopped while it waited is continued",
    "gettimeofday": "the vDSO answers for it, except on machines whose clock it cannot read",
    "select": "C libraries that do not make pselect6 of it",
    "sched_yield": "locks that spin: OpenMP's with more than one thread, mimalloc's, free-threaded Python's",
    "fork": "C libraries that do not make clone of it",
    "vfork": "subprocess makes it; the exec that follows ends the worker, with evidence",
    "pipe": "C libraries that do not make pipe2 of it",
    "renameat2": "renaming without replacing, in C libraries; its other answer would be that all is read-only",
}
"""Name of a call whose rows are allowed although no program makes it -> why."""


def calls_of_workers(lines: Iterator[str]) -> set[tuple[str, tuple[int, ...]]]:
    """(name, registers) of every call that a locked-down worker, a thread or a child of it made."""
    before: set[str] = set()  # threads that were something else, or are not locked down yet
    calls = set()
    for line in lines:
        match = LINE.match(line)
        if match is None:
            continue
        thread, process, name, registers, resumed = match.groups()
        if not (name or resumed):
            before.discard(thread)  # it ended: the number may come again
        elif process != "fxcell-worker":
            before.add(thread)
        elif thread in before:
            if "seccomp" in (name, resumed) and re.search(r"\) += (0x[0-9a-f]+|\d+)$", line.rstrip()):
                before.discard(thread)
        elif name:
            calls.add((name, tuple(int(word, 0) for word in NUMBER.findall(registers))))
    return calls


def is_used(row: syscalls.Allow, calls: set[tuple[str, tuple[int, ...]]]) -> bool:
    def holds(compare: syscalls.Compare, registers: tuple[int, ...]) -> bool:
        value = OWN_PID if compare.value == syscalls.WORKER_PID else compare.value
        return compare.argument < len(registers) and registers[compare.argument] & compare.mask == value & compare.mask

    return any(
        name == row.name and all(holds(compare, registers) for compare in row.when) for name, registers in calls
    )


GROUPS = ("profiles", "processes", "scratch", "writable_code")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """group -> the calls of its programs, recorded when first asked for."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (make test-compatibility installs it, as root)")
    if subprocess.run([*STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here (ptrace is refused)")
    folder = tmp_path_factory.mktemp("record")

    @functools.cache
    def record(group):
        file = folder / group
        command = [*STRACE, "-o", file, sys.executable, "-c", SCRIPT, HERE.parent.parent, group]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=170, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        with file.open(errors="replace") as lines:
            return calls_of_workers(lines)

    return record


def rows(group):
    """The rows that a group of programs has to need."""
    words = [group] if group in syscalls.BY_WORD else ["load_libraries", "threads"]
    base = () if group in syscalls.BY_WORD else syscalls.BASE
    every = [*base, *(row for word in words for row in syscalls.BY_WORD[word])]
    return [row for row in every if row.machine in ("", platform.machine())]


@pytest.mark.parametrize("group", GROUPS)
def test_every_row_is_used_or_kept_for_a_reason(recorded, group):
    calls = recorded(group)
    idle = [row for row in rows(group) if not is_used(row, calls) and row.name not in KEPT]
    assert [f"{row.name} {row.when or ''}: {row.reason}" for row in idle] == []


@pytest.mark.parametrize("group", GROUPS)
def test_row_that_is_used_is_not_among_those_kept_without_use(recorded, group):
    calls = recorded(group)
    used = {row.name for row in rows(group) if is_used(row, calls)}
    assert used & KEPT.keys() == set()


def test_every_word_has_its_programs():
    assert set(GROUPS[1:]) | {"load_libraries", "threads"} == set(syscalls.BY_WORD)
    assert set(KEPT) <= {row.name for group in GROUPS for row in rows(group)}


def test_recorder_sees_what_a_filter_sees(recorded):
    calls = recorded("profiles")
    assert len(calls) > 1000
    assert {("sendmsg", 3), ("recvmsg", 3)} <= {(name, registers[0]) for name, registers in calls if registers}
    assert not {"execve", "mount", "unshare", "pivot_root", "ptrace"} & {name for name, _ in calls}
