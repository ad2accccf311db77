"""`fxcell demo`, once, as a user runs it with its output in a file."""

import os
import subprocess
import sys

import pytest

from fxcell.host.commands.demo_rows import ROWS
from tests.leaks import assert_nothing_left

REACHED = "" if os.environ.get("FXCELL_EMULATED") else "16 "
"""In 3 s the bomb comes to its limit, but not under emulation: there tests/escapes/test_fork_bomb.py alone shows the limit."""
ENDS = [
    ("word_count", "answer", "('fox', 2)"),
    ("json_totals", "answer", "'c0': 16668333"),
    ("linear_algebra", "answer", "e-1"),
    ("draw_images", "answer", "5 files"),
    ("thumbnail", "answer", "4 thumbnails"),
    ("fetch", "answer", "200 hello from the demo's server"),
    ("pi_digits", "answer", "3.243F6A8885"),
    ("segfault", "signal", "SIGSEGV"),
    ("abort", "signal", "SIGABRT"),
    ("infinite_loop", "deadline", "no answer within 1 s"),
    ("memory_bomb", "out_of_memory", "512 MiB"),
    ("fork_bomb", "PermissionError", "Operation not permitted"),
    ("fork_bomb", "deadline", f"{REACHED}processes at most, the neighbour"),
    ("read_shadow", "FileNotFoundError", "/etc/shadow"),
    ("ask_for_shadow", "effect denied", "FX.ReadFile"),
    ("connect", "PermissionError", "Operation not permitted"),
    ("fetch", "effect denied", "169.254.169.254"),
    ("ptrace_sibling", "denied_syscall", "the worker called ptrace("),
    ("start_shell", "denied_syscall", "the worker called execve("),
    ("exit_zero", "exited", "status 0 instead of answering"),
    ("forged_frame", "protocol_violation", "4294967295 bytes"),
    ("forged_answer", "protocol_violation", "not for command 1"),
    ("output_flood", "output_limit", "more to stdout and stderr"),
]


@pytest.fixture(scope="module")
def demo():
    with assert_nothing_left(patience_s=10):
        return subprocess.run([sys.executable, "-m", "fxcell", "demo"], capture_output=True, text=True)


def rows_of(table):
    """The rows of the printed table, the parts of a folded cell joined: (plugin, the whole row)."""
    rows = []
    for line in table.splitlines()[3:]:
        if line[:2].strip() and not line.startswith("One more call"):
            rows.append([line.split()[0], line])
        elif line.startswith("One more call"):
            break
        elif rows:
            rows[-1][1] += line
    return [(plugin, " ".join(text.split())) for plugin, text in rows]


@pytest.mark.slow
def test_every_plugin_ends_as_expected(demo):
    assert demo.stderr == ""
    rows = rows_of("\n".join(line.removeprefix(" ") for line in demo.stdout.splitlines()))
    assert [plugin for plugin, _ in rows] == [plugin for plugin, _, _ in ENDS]
    for (_, row), (_, end, words) in zip(rows, ENDS, strict=True):
        assert f" {end} " in row
        assert words in row
    assert "NOT EXPECTED" not in demo.stdout
    assert demo.returncode == 0


@pytest.mark.slow
def test_the_host_answers_one_more_call_and_counts(demo):
    *_, once_more, neighbour, last = demo.stdout.splitlines()
    assert once_more.startswith("One more call, in a new worker: [('still', 3), ('here', 2)] in ")
    assert "each one rightly" in neighbour
    assert last == "16 of 16 hostile plugins contained, 7 of 7 honest ones answered; no process is left behind."


def test_the_table_names_every_row_of_the_demo():
    assert [row.plugin for row in ROWS] == [plugin for plugin, _, _ in ENDS]
    assert sum(row.hostile for row in ROWS) >= 11


def test_a_folder_that_is_not_there_exits_2():
    command = [sys.executable, "-m", "fxcell", "demo", "--images", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fxcell: --images '/nowhere' is not a folder\n"
