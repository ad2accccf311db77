"""Output without end and output that would act on a terminal."""

import pytest

from fxcell import FX, Reason, run, zef_function
from tests.escapes.conftest import compute

CHATTY = compute(name="64 KiB of output", limits={"output_bytes": 64 * 1024})


@zef_function
def print_without_end():
    line = "x" * 1000
    while True:
        print(line)


@zef_function
def write_to_descriptor_without_end(descriptor):
    import os

    block = b"y" * 65536
    while True:
        os.write(descriptor, block)


@zef_function
def print_escapes():
    import sys

    print("\x1b]52;c;c2VjcmV0\x07\x1b[2J\rhidden\x9b31m\u202e")
    print("lone \ud800 surrogate")
    sys.stdout.buffer.write(b"\xff\xfe not UTF-8\n")
    sys.stderr.write("\x1b[31merror\x1b[0m\n")
    return "answered"


@zef_function
def read_standard_input():
    import os
    import sys

    return sys.stdin.read(), os.read(0, 100)


@pytest.mark.parametrize(
    "call",
    [print_without_end(), write_to_descriptor_without_end(1), write_to_descriptor_without_end(2)],
    ids=["print", "descriptor 1", "descriptor 2"],
)
def test_output_without_end_is_ended_by_the_output_limit(arena, call, capsys):
    crash = arena.attack(call, CHATTY)
    assert crash.reason is Reason.OUTPUT_LIMIT
    assert len(crash.evidence.stdout_tail) + len(crash.evidence.stderr_tail) < 40_000
    shown = capsys.readouterr()
    assert len(shown.out) + len(shown.err) <= 2 * 64 * 1024


def test_escape_sequences_are_shown_as_text(arena, capsys):
    assert arena.attack(print_escapes()) == "answered"
    shown = capsys.readouterr()
    assert r"\x1b]52;c;" in shown.out
    assert "not UTF-8" in shown.out
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e", "\ud800"} & set(shown.out + shown.err)


def test_output_is_not_shown_where_print_is_not_granted(arena, capsys):
    silent = compute(name="silent", effects={})
    assert arena.attack(print_escapes(), silent) == "answered"
    assert capsys.readouterr().out == ""


def test_standard_input_is_empty(arena):
    assert arena.attack(read_standard_input()) == ("", b"")


def test_neighbours_output_is_not_held_up(arena, capsys):
    arena.attack(print_without_end(), CHATTY)
    FX.SendCommandToWorkerProcess(process=arena.neighbour, command=FX.Print(content="still here")) | run
    assert "still here" in capsys.readouterr().out
